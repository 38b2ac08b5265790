"""Which kernels a call launches, and that all give the same result."""

from importlib.util import module_from_spec, spec_from_file_location
from unittest.mock import patch

import pytest
import torch
from triton.runtime.autotuner import Autotuner

from eefast.kernels import launch
from eefast.ops import Accumulate, ExitState, Gain, HeadWeights, Keep, ScorerKind, exit_step
from tests.ops.cases import IMPLS, check, make_head, make_hidden, run, table_of

pytestmark = pytest.mark.skipif(
    "triton" not in IMPLS, reason="needs Triton's interpreter; tests/gpu has the tests for a GPU"
)

STEP = dict(exit=1, layer=1, keep=Keep.AGREE, gain=Gain.CONFIDENCE)
KERNELS = ("pooler_kernel", "exit_step_kernel", "tiles_kernel", "merge_kernel")


def launched(rows, d, c, pooler):
    """The kernels of one call, in order."""
    order = []

    class Spy:
        def __init__(self, name):
            self.name, self.kernel = name, getattr(launch, name)

        def __getitem__(self, grid):
            order.append(self.name)
            return self.kernel[grid]

    spies = {name: Spy(name) for name in KERNELS}
    with patch.multiple(launch, **spies):
        run(
            "triton", make_hidden(rows, d), make_head(d, c, pooler=pooler), table_of(2),
            ExitState.start(rows, c, 2), **STEP,
        )  # fmt: skip
    return order


def test_one_launch_for_few_classes_two_for_many_and_one_more_for_a_pooler():
    few = launch.ONE_PROGRAM_OUTPUTS
    assert launched(3, 8, few, pooler=False) == ["exit_step_kernel"]
    assert launched(3, 8, few, pooler=True) == ["pooler_kernel", "exit_step_kernel"]
    assert launched(3, 8, few + 1, pooler=False) == ["tiles_kernel", "merge_kernel"]
    assert launched(3, 8, few + 1, pooler=True) == ["pooler_kernel", "tiles_kernel", "merge_kernel"]
    assert launched(0, 8, 2, pooler=True) == []


PARTS = [
    {},
    {"accumulate": Accumulate.VOTES, "gain": Gain.VOTES},
    {"accumulate": Accumulate.VOTES, "keep": Keep.CONFIDENCE_ABOVE},
    {"scorer_kind": ScorerKind.ROW, "keep": Keep.NOT_SCORE, "gain": Gain.SCORE},
]


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize(("d", "pooler"), [(64, False), (8, True)])
def test_both_ways_give_the_same(d, pooler, parts):
    """At the border between one program and tiles both give the same, up to rounding."""
    few = launch.ONE_PROGRAM_OUTPUTS
    learned, votes = "scorer_kind" in parts, "accumulate" in parts
    c = few - learned
    hidden, head, table = make_hidden(3, d), make_head(d, few, pooler=pooler), table_of(3)
    state = ExitState.start(3, c, 3, votes=votes, memory=learned)
    for exit in (2, 3):
        step = {**STEP, "exit": exit, **parts}
        one = check("triton", hidden, head, table, state, **step)
        with patch.object(launch, "ONE_PROGRAM_OUTPUTS", few - 1):
            tiled = check("triton", hidden, head, table, state, **step)
        assert torch.equal(one.prediction, tiled.prediction)
        torch.testing.assert_close(one.score, tiled.score)
        left = one.exit_layer > 0
        torch.testing.assert_close(one.logits[left], tiled.logits[left])
        for ours, theirs in ((one.votes, tiled.votes), (one.memory, tiled.memory)):
            if ours is not None:
                torch.testing.assert_close(ours, theirs)
        state = one


@pytest.mark.parametrize("c", [129, 192, 1100])
@pytest.mark.parametrize("lead", [1, 2])
def test_many_classes_with_votes_and_a_learned_score(c, lead):
    """The score's row lies in the last tile, or in one of its own; one vote more makes a tie."""
    state = ExitState.start(2, c, 2, votes=True, memory=True)
    state.votes[:, c - 1] = float(lead)
    state.prediction[:] = c - 1
    got = check(
        "triton", make_hidden(2, 4), make_head(4, c + 1), table_of(2), state,
        **{**STEP, "exit": 2, "gain": Gain.SCORE},
        accumulate=Accumulate.VOTES, scorer_kind=ScorerKind.ROW,
    )  # fmt: skip
    assert ((got.prediction == c - 1) == (lead == 2)).all()


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"accumulate": Accumulate.LOG_PROBABILITIES}, "log-probabilities .* up to 128 outputs"),
        ({"accumulate": Accumulate.MOST_CONFIDENT}, "the most confident exit .* 128 outputs"),
        ({"scorer_kind": ScorerKind.NETWORK}, "a network scorer .* got 129; impl='cuda'"),
        ({"cascade": torch.zeros(129, 129)}, "a cascade .* up to 128 outputs"),
    ],
)
def test_what_tiles_cannot_do_is_refused(parts, words):
    head, votes = make_head(8, 129), "cascade" not in parts
    if not votes:
        head, parts = head._replace(**parts), {}
    state = ExitState.start(2, 129, 2, votes=votes, memory="scorer_kind" in parts)
    if state.memory is not None:
        parts = {**parts, "scorer": torch.ones(3, 129 + 5)}
    with pytest.raises(ValueError, match=words):
        exit_step(
            make_hidden(2, 8), head, table_of(2), state, impl="triton",
            **STEP, **parts,
        )  # fmt: skip
    assert not state.exit_layer.any()


def test_autotuning_is_asked_for(monkeypatch):
    """The tuner needs a GPU to run; this checks that the launch lets it choose."""
    monkeypatch.setenv("EEFAST_AUTOTUNE", "1")
    spec = spec_from_file_location(f"{launch.__package__}.tuned", launch.__file__)
    tuned = module_from_spec(spec)
    spec.loader.exec_module(tuned)
    for kernel in ("pooler_kernel", "tiles_kernel"):
        assert isinstance(getattr(tuned, kernel), Autotuner)
        assert not isinstance(getattr(launch, kernel), Autotuner)
    blocks = tuned._matrix(torch.zeros(1, 16), torch.zeros(300, 16))
    assert sorted(blocks) == ["BLOCK_N", "BLOCK_R", "IN_FLOAT32"]


def test_a_wide_head():
    check(
        "triton", make_hidden(2, 8192, torch.bfloat16), make_head(8192, 3, torch.bfloat16),
        table_of(2), ExitState.start(2, 3, 2), **STEP,
    )  # fmt: skip


@pytest.mark.parametrize("where", [0, 63, 64, 200, 299])  # tiles have 64 classes
def test_ties_and_nan_across_tiles(where):
    """The lowest class of a tie and the first NaN, wherever tiles begin and end."""
    z = torch.zeros(300)
    z[where:] = 3.0
    one, start = torch.ones(1, 1), ExitState.start(1, 300, 2)
    head = HeadWeights(None, None, z[:, None], None)
    got = run("triton", one, head, table_of(2), start, **STEP)
    assert got.prediction.item() == where
    z[where:] = float("nan")
    got = run("triton", one, HeadWeights(None, None, z[:, None], None), table_of(2), start, **STEP)
    assert got.prediction.item() == where
    assert got.score.isnan().all()
    assert got.exit_layer.item() == 0
