"""What the tests of the exit step share: heads, hidden states, and what counts as equal."""

import math
import os

import pytest
import torch

from eefast.ops import (
    Accumulate,
    ExitState,
    Gain,
    HeadWeights,
    Keep,
    Recurrence,
    ScorerKind,
    exit_step,
)
from tests import emulation
from tests.ops import oracle

_FLOATS = [torch.float32, torch.float16, torch.bfloat16]
DTYPES = {
    "reference": _FLOATS,
    "cpp": [torch.float32, torch.bfloat16],
    "triton": _FLOATS,
    "cuda": _FLOATS,
}
if os.environ.get("TRITON_INTERPRET") != "1":  # as it is where there is a GPU: see tests/gpu
    del DTYPES["triton"]
IMPLS = list(DTYPES)
IMPLS_AND_DTYPES = [(impl, dtype) for impl in IMPLS for dtype in DTYPES[impl]]
F32 = torch.finfo(torch.float32).eps


def make_head(
    d, c, dtype=torch.float32, pooler=False, bias=True, seed=0, pooler_scale=1.0, cascade=None
):
    """`cascade` is the number of classes without the row of a scorer, of a head that has one."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape, scale=1.0):
        return (torch.randn(*shape, generator=g) * scale).to(dtype)

    return HeadWeights(
        normal(d, d, scale=pooler_scale * d**-0.5) if pooler else None,
        normal(d, scale=0.1 * pooler_scale) if pooler and bias else None,
        normal(c, d, scale=2 * d**-0.5 / pooler_scale),
        normal(c, scale=0.1) if bias else None,
        torch.randn(cascade, cascade, generator=g) * cascade**-0.5 if cascade else None,
    )


def make_hidden(rows, d, dtype=torch.float32, seed=1):
    """Rows as a model hands them over: the first tokens of [B, T, D], strided."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 3, d, generator=g).to(dtype)[:, 0]


def table_of(exits, weight=1.0, threshold=0.9, tau=0.5):
    return torch.tensor([[weight, threshold, tau]] * exits)


def error_budget(hidden, head):
    """The error budget of logits: twice the error of same-dtype PyTorch, both against float64.

    PyTorch may be lucky on a few numbers, so never less than four roundings of the largest logit,
    nor than one rounding of the largest sum of magnitudes |w| |x|, which is what the rounding
    errors of a sum are proportional to.
    """
    if not len(hidden):
        return 0.0
    if hidden.dim() == 3:
        hidden = hidden.flatten(0, 1)  # whichever token is read
    exact = oracle.logits_of(hidden, head)
    x = hidden.float()
    if head.pooler_weight is not None:
        bias = None if head.pooler_bias is None else head.pooler_bias.float()
        x = torch.nn.functional.linear(x, head.pooler_weight.float(), bias).tanh()
    bias = None if head.bias is None else head.bias.float()
    z = torch.nn.functional.linear(x, head.weight.float(), bias)
    error = (z - exact).abs().max().item()
    magnitudes = x.abs() @ head.weight.float().abs().T
    roundings = max(4.0, 4 * exact.abs().max().item(), magnitudes.max().item())
    return max(2 * error, F32 * roundings)


def assert_same(got, want, budget, threshold=None, cascade=False):
    """Integers exactly, floats within the budget.

    Rows whose score lies within the budget of the threshold may go either way; they are skipped,
    and other rows must remain. (A score is a sum of at most 8 numbers in [-1, 1] that move no
    faster than the logits, so 8 budgets cover it.)
    """
    sure = torch.ones(len(got.score), dtype=torch.bool)
    if threshold is not None and math.isfinite(threshold):
        # A score that equals its threshold in float64 too (counts, and C = 1) is exact.
        distance = (want.score - threshold).abs()
        sure = (distance > 8 * budget) | (distance == 0)
        assert sure.any() or not len(sure)
    assert torch.equal(got.prediction[sure], want.prediction[sure])
    assert torch.equal(got.exit_layer[sure], want.exit_layer[sure])
    torch.testing.assert_close(
        got.score[sure].double(), want.score[sure], atol=8 * budget, rtol=1e-6, equal_nan=True
    )
    for ours, exact in ((got.votes, want.votes), (got.memory, want.memory)):
        assert (ours is None) == (exact is None)
        if exact is not None:
            torch.testing.assert_close(
                ours[sure].double(), exact[sure], atol=8 * budget, rtol=1e-5, equal_nan=True
            )
    left = cascade or want.logits.shape[1] == 1  # for the next exit
    written = sure & ((want.exit_layer > 0) | left)
    torch.testing.assert_close(
        got.logits[written].double(), want.logits[written], atol=budget, rtol=0, equal_nan=True
    )
    if sure.all():
        assert torch.equal(got.running, want.running)


def copy_of(state):
    return ExitState(*(None if t is None else t.clone() for t in state))


def run_in_place(impl, *args, **kwargs):
    """`exit_step` with one of IMPLS, on the device that this machine has for it."""
    if impl == "cuda":  # on tensors that are on the CPU
        emulation.exit_step(*args, **kwargs)
    else:
        exit_step(*args, impl=impl, **kwargs)


BORDER = 64  # elements on either side of what may be written


def run(impl, hidden, head, table, state, **kwargs):
    """The state after the step; also checks that nothing beside it was written."""
    wide = [None if t is None else torch.full([t.numel() + 2 * BORDER], 77).to(t) for t in state]
    got = ExitState(
        *(
            None if t is None else w[BORDER:-BORDER].view(t.shape).copy_(t)
            for t, w in zip(state, wide, strict=True)
        )
    )
    run_in_place(impl, hidden, head, table, got, **kwargs)
    for w in wide:
        assert w is None or (torch.cat([w[:BORDER], w[-BORDER:]]) == torch.tensor(77).to(w)).all()
    return got


def check(impl, hidden, head, table, state, **kwargs):
    want = oracle.exit_step(hidden, head, table, state, **kwargs)
    got = run(impl, hidden, head, table, state, **kwargs)
    budget = error_budget(hidden, head)
    if head.cascade is not None:  # one more sum, whose rounding is proportional to its magnitudes
        budget += F32 * (state.logits.abs() @ head.cascade.abs().T).amax().item()
    threshold = table[kwargs["exit"] - 1, 1].item()
    assert_same(got, want, budget, threshold, head.cascade is not None)
    return got


def goes_together(recurrence):
    """Whether the exit step knows the kinds and does not refuse them."""
    try:
        recurrence.check()
    except ValueError:
        return False
    return not recurrence.by_similarity  # which is for another op


def keep_of(accumulate, otherwise=Keep.AGREE):
    """A keep that goes with the accumulator."""
    return Keep.CONFIDENCE_ABOVE if accumulate is Accumulate.STREAK_MEAN else otherwise


PARTS = [
    (Accumulate.VOTES, ScorerKind.NONE, Keep.NEVER, Gain.VOTES),
    (Accumulate.VOTES, ScorerKind.ROW, Keep.CONFIDENCE_ABOVE, Gain.SCORE),
    (Accumulate.LOG_PROBABILITIES, ScorerKind.NONE, Keep.AGREE, Gain.CONFIDENCE),
    (Accumulate.LOG_PROBABILITIES, ScorerKind.ROW, Keep.NOT_SCORE, Gain.SCORE),
    (Accumulate.NONE, ScorerKind.NETWORK, Keep.NOT_SCORE, Gain.SCORE),
    (Accumulate.VOTES, ScorerKind.NETWORK, Keep.AGREE, Gain.CONFIDENCE),
    (Accumulate.NONE, ScorerKind.ROW, Keep.SCORE_ABOVE, Gain.SCORE_ABOVE),
    (Accumulate.TEMPERATURE, ScorerKind.NONE, Keep.AGREE, Gain.CONFIDENCE),
    (Accumulate.TEMPERATURE, ScorerKind.NETWORK, Keep.NEVER, Gain.SCORE),
    (Accumulate.MEAN, ScorerKind.NONE, Keep.AGREE, Gain.CONFIDENCE),
    (Accumulate.STREAK_MEAN, ScorerKind.NONE, Keep.ENTROPY_BELOW, Gain.ENTROPY_BELOW),
    (Accumulate.STREAK_MEAN, ScorerKind.ROW, Keep.SCORE_ABOVE, Gain.SCORE_ABOVE),
    (Accumulate.MOST_CONFIDENT, ScorerKind.NONE, Keep.NEVER, Gain.CONFIDENCE),
]
"""Accumulators and scorers, each with kinds that use it."""


def check_parts(impl, accumulate, kind, keep, gain, *, samples, classes, exits, cascade=False):
    """One of PARTS over all exits, whose heads may read one another."""
    if classes == 1 and accumulate and keep is Keep.AGREE:
        pytest.skip("refused: tests/ops/test_arguments.py")
    recurrence = Recurrence(keep, gain, False, accumulate, kind)
    table = table_of(exits, weight=0.75, threshold=1.7 if gain is Gain.VOTES else 0.6)
    state = ExitState.start(samples, classes, exits, votes=recurrence.uses_votes, memory=bool(kind))
    g = torch.Generator().manual_seed(3)
    for exit in range(1, exits + 1):
        scorer = torch.randn(5, classes + exit + 4, generator=g) * 0.3
        state = check(
            impl, make_hidden(samples, 16, seed=exit),
            make_head(
                16, classes + (kind is ScorerKind.ROW), seed=exit, cascade=cascade * classes
            ),
            table, state, exit=exit, layer=exit, keep=keep, gain=gain, accumulate=accumulate,
            scorer_kind=kind, scorer=scorer if kind is ScorerKind.NETWORK else None,
        )  # fmt: skip
    assert state.exit_layer.all()
