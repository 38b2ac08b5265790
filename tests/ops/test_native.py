"""The C++ extension: its instruction sets, its threads, and what it refuses by itself."""

import pytest
import torch

from eefast.ops import (
    Accumulate,
    ExitState,
    Gain,
    HeadWeights,
    Keep,
    ScorerKind,
    Step,
    _native,
    exit_step,
    implementation,
)
from tests.ops import oracle
from tests.ops.cases import error_budget, make_head, make_hidden, table_of

SETS = torch.ops.eefast.cpp_instruction_sets()
STEP = {"exit": 1, "layer": 1, "keep": Keep.AGREE, "gain": Gain.CONFIDENCE}


@pytest.fixture
def instruction_set(request):
    before = torch.ops.eefast.cpp_use_instruction_set(request.param)
    yield request.param
    torch.ops.eefast.cpp_use_instruction_set(before)


def logits(hidden, head):
    samples, classes = len(hidden), len(head.weight)
    state = ExitState.start(samples, classes, 1)
    exit_step(hidden, head, table_of(1), state, impl="cpp", **STEP)
    return state.logits


def test_there_is_a_portable_instruction_set():
    assert "baseline" in SETS
    with pytest.raises(RuntimeError, match="mmx"):
        torch.ops.eefast.cpp_use_instruction_set("mmx")


@pytest.mark.parametrize("instruction_set", SETS, indirect=True)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("pooler", [False, True])
@pytest.mark.parametrize("d", [1, 7, 33, 384])
@pytest.mark.parametrize("rows", [1, 9])
def test_every_instruction_set_is_as_exact(instruction_set, dtype, pooler, d, rows):
    hidden, head = make_hidden(rows, d, dtype), make_head(d, 5, dtype, pooler)
    exact = oracle.logits_of(hidden, head)
    error = (logits(hidden, head) - exact).abs().max().item()
    assert error <= error_budget(hidden, head)


def test_results_do_not_depend_on_the_number_of_threads():
    hidden, head = make_hidden(40, 768), make_head(768, 3, pooler=True)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = logits(hidden, head)
        torch.set_num_threads(2)
        assert torch.equal(logits(hidden, head), one)
    finally:
        torch.set_num_threads(threads)


def op_arguments(**changes):
    arguments = {
        "hidden": make_hidden(4, 8), "offsets": None, "scorer": None, "table": table_of(2),
        **make_head(8, 3, pooler=True)._asdict(), "rows": None, "step": Step(1, 1, 1, 1).pack(),
        **ExitState.start(4, 3, 2)._asdict(),
    }  # fmt: skip
    return {**arguments, **changes}


VOTING = Step(1, 1, Keep.AGREE, Gain.VOTES, accumulate=Accumulate.VOTES).pack()
NETWORK = Step(1, 1, Keep.AGREE, Gain.SCORE, scorer=ScorerKind.NETWORK).pack()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden": torch.zeros(4, 8, dtype=torch.float16)}, "hidden"),
        ({"hidden": torch.zeros(4, 7)}, "weight"),
        ({"weight": torch.zeros(3, 16)[:, ::2]}, "weight.*not contiguous"),
        ({"table": torch.zeros(2, 4)}, "table"),
        ({"rows": torch.tensor([0, 1, 2, 4])}, r"rows must be in 0\.\.3, got 4"),
        ({"rows": torch.tensor([-1, 1, 2, 3])}, r"rows must be in 0\.\.3, got -1"),
        ({"rows": torch.tensor([0])}, "rows"),
        ({"step": Step(3, 1, 1, 1).pack()}, r"exit must be in 1\.\.2, got 3"),
        ({"step": Step(1, 0, 1, 1).pack()}, "layer"),
        ({"step": Step(1, 1, 7, 1).pack()}, "keep"),
        ({"step": Step(1, 1, 1, 9).pack()}, "gain"),
        ({"step": Step(1, 1, 1, 1, accumulate=7).pack()}, r"accumulate must be in 0\.\.6"),
        ({"step": Step(1, 1, 1, 1, scorer=3).pack()}, r"scorer's kind must be in 0\.\.2"),
        ({"step": Step(1, 1, 5, 1).pack()}, "needs a scorer"),
        ({"step": Step(1, 1, 6, 1).pack()}, "needs a scorer"),
        ({"step": Step(1, 1, 1, 6).pack()}, "needs a scorer"),
        ({"step": Step(1, 1, 1, 8).pack()}, "needs a scorer"),
        ({"step": Step(1, 1, 1, 7).pack()}, "must accumulate"),
        ({"step": Step(1, 1, 1, 1, scorer=1).pack()}, r"weight must be Float \[4, 8\]"),
        ({"step": VOTING}, "votes must be given"),
        ({"step": Step(1, 1, 1, 1, accumulate=4).pack()}, "votes must be given"),
        ({"step": Step(1, 1, 1, 6, accumulate=6, scorer=2).pack()}, "vote share"),
        ({"votes": torch.zeros(4, 3)}, "votes must be given if and only if"),
        ({"step": VOTING, "votes": torch.zeros(4, 4)}, r"votes must be Float \[4, 3\]"),
        ({"memory": torch.zeros(4, 2)}, "memory"),
        ({"cascade": torch.zeros(3, 2)}, r"cascade must be Float \[3, 3\]"),
        ({"scorer": torch.zeros(2, 8)}, "scorer must be given if and only if"),
        ({"step": NETWORK}, "scorer must be given"),
        ({"step": NETWORK, "scorer": torch.zeros(2, 7)}, r"scorer must be Float \[2, 8\]"),
        (
            {"step": NETWORK, "scorer": torch.zeros(2, 8), "votes": torch.zeros(4, 3)},
            "memory must be given",
        ),
        (
            {
                "step": NETWORK,
                "scorer": torch.zeros(2, 8),
                "votes": torch.zeros(4, 3),
                "memory": torch.zeros(4, 1),
            },
            r"memory must be \[samples, 2 or more\]; got Float \[4, 1\]",
        ),
        ({"score": torch.zeros(3)}, r"exit_layer must be Int \[3\]"),
        ({"prediction": torch.zeros(4, dtype=torch.int64)}, "prediction"),
        ({"exit_layer": torch.zeros(3, dtype=torch.int32)}, "exit_layer"),
        ({"logits": torch.zeros(4, 0)}, "logits"),
        ({"logits": torch.zeros(3, 3)}, r"logits must be Float \[4, 3\]"),
        ({"logits": torch.zeros(4, 2)}, r"weight must be Float \[2, 8\]"),
        ({"hidden": torch.zeros(4, 2, 8), "offsets": torch.arange(4)}, "with offsets"),
        ({"offsets": torch.tensor([0, 1, 2, 4])}, r"offsets must be in 0\.\.3, got 4"),
        ({"offsets": torch.tensor([0, 1, -2, 3])}, r"offsets must be in 0\.\.3, got -2"),
        ({"offsets": torch.zeros(4)}, r"offsets must be Long \[4\]"),
        ({"running": torch.zeros(1, dtype=torch.bool)}, "running"),
    ],
)
def test_the_bare_op_never_reads_or_writes_out_of_bounds(changes, words):
    """A runtime calls it without the checks of `exit_step`; it must still refuse, unchanged."""
    arguments = op_arguments(**changes)
    with pytest.raises(RuntimeError, match=words):
        implementation("cpp")(**arguments)
    assert (arguments["exit_layer"] == 0).all()


def test_a_weight_of_zero_still_leaves_the_score_a_number():
    state = ExitState.start(1, 2, 2)
    head = HeadWeights(None, None, torch.eye(2), None)
    table = torch.tensor([[0.0, 1.0, 0.5], [1.0, 1.0, 0.5]])
    exit_step(torch.zeros(1, 2), head, table, state, impl="cpp", **STEP)
    assert state.score.item() == 0


def test_without_the_extension_cpp_says_what_to_do(monkeypatch):
    monkeypatch.setattr(_native, "AVAILABLE", False)
    with pytest.raises(RuntimeError, match=r"not built here.*C\+\+ compiler.*impl='reference'"):
        implementation("auto")
    implementation("reference")
