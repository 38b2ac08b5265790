"""What the exit step takes, what it refuses, and which implementation it goes to."""

import pytest
import torch

from eefast.ops import (
    Accumulate,
    ExitState,
    Gain,
    Keep,
    ScorerKind,
    Step,
    _native,
    exit_step,
    implementation,
)
from tests.ops.cases import IMPLS, copy_of, make_head, make_hidden, table_of

ON_CPU = [impl for impl in IMPLS if impl != "cuda"]  # whose op takes no tensors of a CPU


@pytest.mark.parametrize("impl", ON_CPU)
def test_opcheck(impl):
    op = getattr(torch.ops.eefast.exit_step, impl)
    state = ExitState.start(4, 3, 2)
    args = (
        make_hidden(4, 8), None, *make_head(8, 3, pooler=True), None, table_of(2), torch.arange(4),
        Step(1, 1, Keep.AGREE, Gain.CONFIDENCE).pack(), *state,
    )  # fmt: skip
    torch.library.opcheck(op, args)


def good_arguments():
    return dict(
        hidden=make_hidden(4, 8), head=make_head(8, 3, pooler=True), table=table_of(2),
        state=ExitState.start(4, 3, 2), exit=1, layer=1, keep=Keep.AGREE, gain=Gain.CONFIDENCE,
    )  # fmt: skip


def bad(**changes):
    def make():
        arguments = good_arguments()
        for name, change in changes.items():
            arguments[name] = change(arguments.get(name)) if callable(change) else change
        return arguments

    return make


def with_votes(state):
    return state._replace(votes=torch.zeros(4, 3))


def with_memory(state):
    return state._replace(memory=torch.zeros(4, 2))


def with_both(state):
    return with_memory(with_votes(state))


NETWORK = dict(scorer_kind=ScorerKind.NETWORK, scorer=torch.zeros(2, 3 + 1 + 4))


@pytest.mark.parametrize("impl", ON_CPU)
@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (bad(hidden=lambda h: h.double()), TypeError, "float64"),
        (bad(hidden=lambda h: h[None, None]), ValueError, "hidden must be"),
        (bad(hidden=lambda h: h[:, None][:, :0]), ValueError, "at least one token"),
        (bad(hidden=lambda h: h[:, None], offsets=torch.arange(4)), ValueError, r"\[M, D\]"),
        (bad(offsets=torch.tensor([0, 1, 2, 4])), ValueError, r"offsets must lie in 0\.\.3"),
        (bad(offsets=torch.tensor([0, -1, 2, 3])), ValueError, r"offsets must lie in 0\.\.3"),
        (bad(offsets=torch.tensor([[0, 1, 2, 3]])), ValueError, "offsets must be"),
        (bad(offsets=torch.arange(4.0)), TypeError, "offsets must be torch.int64"),
        (bad(offsets=torch.arange(3)), ValueError, "3 rows for 4 samples"),
        (bad(hidden=torch.zeros(8, 4).T), ValueError, "hidden must be"),
        (bad(hidden=lambda h: h[:3]), ValueError, "3 rows for 4 samples"),
        (bad(hidden=lambda h: h.bfloat16()), TypeError, "head.weight must be torch.bfloat16"),
        (bad(head=lambda h: h._replace(weight=h.weight[:, :7])), ValueError, "head.weight"),
        (bad(head=lambda h: h._replace(bias=h.bias[:2])), ValueError, "head.bias"),
        (bad(head=lambda h: h._replace(pooler_weight=None)), ValueError, "pooler_weight"),
        (bad(head=lambda h: h._replace(pooler_bias=h.pooler_bias[:2])), ValueError, "pooler_bias"),
        (
            bad(head=lambda h: h._replace(cascade=torch.zeros(3, 2))),
            ValueError,
            r"head.cascade must be contiguous of shape \[3, 3\], got \[3, 2\]",
        ),
        (
            bad(head=lambda h: h._replace(cascade=torch.zeros(3, 3).bfloat16())),
            TypeError,
            "head.cascade must be torch.float32, got torch.bfloat16",
        ),
        (bad(table=torch.zeros(2, 2)), ValueError, r"table must be contiguous of shape \[2, 3\]"),
        (bad(table=torch.zeros(2, 3).double()), TypeError, "table must be torch.float32"),
        (bad(exit=0), ValueError, r"exit must be in 1\.\.2"),
        (bad(exit=3), ValueError, r"exit must be in 1\.\.2"),
        (bad(layer=0), ValueError, "layer"),
        (bad(layer=1 << 16), ValueError, r"layer must be in 1\.\.65535"),
        (bad(keep=9), ValueError, "9"),
        (bad(gain=10), ValueError, "10"),
        (bad(keep=Keep.NOT_SCORE), ValueError, "NOT_SCORE needs a scorer"),
        (bad(gain=Gain.SCORE), ValueError, "SCORE needs a scorer"),
        (bad(gain=Gain.VOTES), ValueError, "VOTES needs Accumulate.VOTES"),
        (bad(accumulate=Accumulate.VOTES), ValueError, "state.votes must be given"),
        (
            bad(
                state=lambda s: with_votes(s)._replace(logits=torch.zeros(4, 1)),
                accumulate=Accumulate.VOTES,
            ),
            ValueError,
            "with one class AGREE compares .* and needs Accumulate.NONE, got Accumulate.VOTES",
        ),
        (bad(state=with_votes), ValueError, "state.votes must be given if and only if"),
        (bad(state=with_memory), ValueError, "without a scorer"),
        (bad(scorer_kind=ScorerKind.ROW), ValueError, r"head.weight .* \[4, 8\]"),
        (bad(scorer=torch.zeros(2, 8)), ValueError, "scorer must be weights with"),
        (bad(scorer_kind=ScorerKind.NETWORK), ValueError, "scorer must be weights with"),
        (bad(**NETWORK, state=with_votes), ValueError, "state.memory must be given"),
        (bad(**NETWORK, state=with_memory), ValueError, "state.votes must be given"),
        (
            bad(**{**NETWORK, "scorer": torch.zeros(2, 7)}, state=with_both),
            ValueError,
            r"scorer must be contiguous of shape \[2, 8\]",
        ),
        (
            bad(**NETWORK, state=lambda s: with_both(s)._replace(memory=torch.zeros(4, 1))),
            ValueError,
            r"state.memory must be contiguous of shape \[4, 2\]",
        ),
        (
            bad(**NETWORK, state=with_both, accumulate=Accumulate.LOG_PROBABILITIES),
            ValueError,
            "vote share",
        ),
        (bad(state=lambda s: s._replace(score=s.score.double())), TypeError, "state.score"),
        (bad(state=lambda s: s._replace(logits=s.logits[:3])), ValueError, "state.logits"),
        (
            bad(state=lambda s: s._replace(logits=torch.zeros(4, 2))),
            ValueError,
            r"head.weight .* \[2, 8\]",
        ),
        (bad(state=lambda s: s._replace(running=s.running[:1])), ValueError, "state.running"),
        (bad(rows=torch.tensor([0, 1, 2, 4])), ValueError, r"rows must lie in 0\.\.3"),
        (bad(rows=torch.tensor([0, 1, 2, -1])), ValueError, r"rows must lie in 0\.\.3"),
        (bad(rows=torch.tensor([0, 1, 2, 2])), ValueError, "at most once"),
        (bad(rows=torch.tensor([0, 1])), ValueError, "rows must be"),
    ],
)
def test_bad_arguments_are_refused_and_nothing_is_changed(impl, arguments, error, words):
    arguments = arguments()
    before = copy_of(arguments["state"])
    with pytest.raises(error, match=words):
        exit_step(**arguments, impl=impl)
    for old, new in zip(before[:3], arguments["state"][:3], strict=True):
        assert torch.equal(old, new)


def test_auto_takes_cuda_for_few_rows_and_classes_where_it_runs(monkeypatch):
    def chosen(rows, classes):
        return implementation("auto", "cuda", rows=rows, classes=classes)

    triton = implementation("triton", "cuda")
    assert chosen(1, 2) is triton  # built or not, there is no GPU for it here
    monkeypatch.setattr(_native, "has_cuda", lambda: True)
    monkeypatch.setattr(_native, "cuda_runs_on", lambda device: True)
    cuda = implementation("cuda", "cuda")
    assert cuda is not triton
    assert chosen(32, 256) is cuda
    assert chosen(33, 256) is triton
    assert chosen(32, 257) is triton
    assert chosen(None, 2) is triton
    assert chosen(1, None) is triton
    with pytest.raises(ValueError, match="up to 32 rows, got 33; impl='triton'"):
        implementation("cuda", "cuda", rows=33)


def test_cuda_that_is_not_built_says_what_to_do(monkeypatch):
    monkeypatch.setattr(_native, "has_cuda", lambda: False)
    with pytest.raises(RuntimeError, match=r"without CUDA here.*nvcc.*impl='triton'"):
        implementation("cuda", "cuda")


def test_implementations_are_explicit():
    with pytest.raises(ValueError, match=r"one of \['cpp', 'cuda', 'reference', 'triton'\]"):
        implementation("fast")
    with pytest.raises(ValueError, match="impl='reference' runs on any device"):
        implementation("auto", "mps")
    with pytest.raises(ValueError, match="runs on 'cpu'"):
        implementation("cpp", "cuda")
    with pytest.raises(TypeError, match="float16"):
        implementation("cpp", "cpu", torch.float16)
    assert implementation("auto") is implementation("cpp")
