"""Every implementation of the exit step against the float64 oracle, over the same cases."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eefast.ops import ExitState, Gain, HeadWeights, Keep, Step, exit_step, implementation
from tests.ops import oracle

IMPLS = ["reference", "cpp"]
DTYPES = [torch.float32, torch.bfloat16]
KINDS = [(keep, gain) for keep in Keep for gain in Gain]
F32 = torch.finfo(torch.float32).eps


def make_head(d, c, dtype=torch.float32, pooler=False, bias=True, seed=0):
    g = torch.Generator().manual_seed(seed)

    def normal(*shape, scale=1.0):
        return (torch.randn(*shape, generator=g) * scale).to(dtype)

    return HeadWeights(
        normal(d, d, scale=d**-0.5) if pooler else None,
        normal(d, scale=0.1) if pooler and bias else None,
        normal(c, d, scale=2 * d**-0.5),
        normal(c, scale=0.1) if bias else None,
    )


def make_hidden(rows, d, dtype=torch.float32, seed=1):
    """Rows as a model hands them over: the first tokens of [B, T, D], strided."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 3, d, generator=g).to(dtype)[:, 0]


def table_of(exits, weight=1.0, threshold=0.9, tau=0.5):
    return torch.tensor([[weight, threshold, tau]] * exits)


def error_budget(hidden, head):
    """What the logits may err by: twice what same-dtype PyTorch errs by, both against float64, and
    never less than four roundings of the largest logit."""
    if not len(hidden):
        return 0.0
    exact = torch.stack([oracle.logits_of(row, head) for row in hidden])
    x = hidden.float()
    if head.pooler_weight is not None:
        bias = None if head.pooler_bias is None else head.pooler_bias.float()
        x = torch.nn.functional.linear(x, head.pooler_weight.float(), bias).tanh()
    bias = None if head.bias is None else head.bias.float()
    z = torch.nn.functional.linear(x, head.weight.float(), bias)
    error = (z - exact).abs().max().item()
    return max(2 * error, 4 * F32 * max(1.0, exact.abs().max().item()))


def assert_same(got, want, budget, threshold=None):
    """Integers exactly, floats within the budget.

    Rows whose score lies within the budget of the threshold may go either way; they are left out,
    and there must be rows left. (A score is a sum of at most 8 numbers in [-1, 1] that move no
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
    left = sure & (want.exit_layer > 0)
    torch.testing.assert_close(
        got.logits[left].double(), want.logits[left], atol=budget, rtol=0, equal_nan=True
    )
    if sure.all():
        assert torch.equal(got.running, want.running)


def run(impl, hidden, head, table, state, **kwargs):
    got = ExitState(*(t.clone() for t in state))
    exit_step(hidden, head, table, got, impl=impl, **kwargs)
    return got


def check(impl, hidden, head, table, state, **kwargs):
    want = oracle.exit_step(hidden, head, table, state, **kwargs)
    got = run(impl, hidden, head, table, state, **kwargs)
    budget = error_budget(hidden, head)
    assert_same(got, want, budget, table[kwargs["exit"] - 1, 1].item())
    return got


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pooler", [False, True])
@pytest.mark.parametrize("d", [1, 33, 768])  # one lane, an odd tail, BERT
@pytest.mark.parametrize("c", [1, 2, 3, 4096])
def test_sizes(impl, dtype, pooler, d, c):
    hidden, head = make_hidden(7, d, dtype), make_head(d, c, dtype, pooler)
    for exit in (1, 3):
        check(
            impl, hidden, head, table_of(3, threshold=0.45), ExitState.start(7, c, 3),
            exit=exit, layer=exit, keep=Keep.AGREE, gain=Gain.CONFIDENCE,
        )  # fmt: skip


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(("keep", "gain"), KINDS)
@pytest.mark.parametrize("strict", [False, True])
def test_every_kind_over_all_exits(impl, keep, gain, strict):
    exits, samples = 4, 24
    threshold = -0.5 if gain is Gain.NEGATIVE_ENTROPY else 1.25
    table = table_of(exits, weight=0.75, threshold=threshold)
    state = ExitState.start(samples, 3, exits)
    for exit in range(1, exits + 1):
        hidden, head = make_hidden(samples, 16, seed=exit), make_head(16, 3, seed=exit)
        state = check(
            impl, hidden, head, table, state,
            exit=exit, layer=3 * exit, keep=keep, gain=gain, strict=strict,
        )  # fmt: skip
    assert (state.exit_layer > 0).all()
    assert not state.running[-1]


@pytest.mark.parametrize("impl", IMPLS)
@given(
    seed=st.integers(0, 2**31),
    samples=st.integers(1, 6),
    exits=st.integers(1, 5),
    kind=st.sampled_from(KINDS),
    threshold=st.floats(-1, 3),
    tau=st.floats(0, 1),
)
def test_random_traces(impl, seed, samples, exits, kind, threshold, tau):
    """A one-hot head makes the hidden vectors the logits: the recurrence over any trace."""
    g = torch.Generator().manual_seed(seed)
    head = HeadWeights(None, None, torch.eye(3), None)
    table = table_of(exits, 0.7, threshold, tau)
    got = ExitState.start(samples, 3, exits)
    want = oracle.exit_step(
        torch.empty(0, 3), head, table, got, exit=1, layer=1, keep=kind[0], gain=kind[1]
    )
    unsure = torch.zeros(samples, dtype=torch.bool)
    for exit in range(1, exits + 1):
        z = torch.randn(samples, 3, generator=g) * 3
        step = dict(exit=exit, layer=exit, keep=kind[0], gain=kind[1])
        for row in z.tolist():
            _, confidence, entropy = oracle.signals_of(row)
            # an indicator that rounding may flip makes everything after it unsure
            unsure |= min(abs(confidence - tau), abs(entropy - tau)) < 1e-5
        want = oracle.exit_step(z, head, table, want, **step)
        exit_step(z, head, table, got, impl=impl, **step)
        unsure |= (want.score - threshold).abs() < 1e-5
    sure = ~unsure
    assert torch.equal(got.exit_layer[sure], want.exit_layer[sure])
    assert torch.equal(got.prediction[sure], want.prediction[sure])
    torch.testing.assert_close(got.score[sure].double(), want.score[sure], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("value", [1e4, -1e4])
def test_huge_logits(impl, value):
    head = HeadWeights(None, None, torch.tensor([[value], [0.0], [value]]), None)
    got = run(
        impl, torch.ones(1, 1), head, table_of(1), ExitState.start(1, 3, 1),
        exit=1, layer=1, keep=Keep.NEVER, gain=Gain.CONFIDENCE,
    )  # fmt: skip
    assert got.prediction.item() == (0 if value > 0 else 1)
    assert got.score.item() == (0.5 if value > 0 else 1.0)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("c", [2, 40])
def test_ties_go_to_the_lowest_class(impl, c):
    head = HeadWeights(None, None, torch.ones(c, 5), None)
    got = run(
        impl, torch.ones(3, 5), head, table_of(1), ExitState.start(3, c, 1),
        exit=1, layer=1, keep=Keep.NEVER, gain=Gain.NEGATIVE_ENTROPY,
    )  # fmt: skip
    assert got.prediction.tolist() == [0, 0, 0]
    assert got.score.tolist() == pytest.approx([-1, -1, -1])


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(
    ("keep", "gain"), [k for k in KINDS if k[1] in (Gain.CONFIDENCE, Gain.NEGATIVE_ENTROPY)]
)
def test_nan_never_exits_early_and_answers_at_the_last_exit(impl, keep, gain):
    hidden = torch.tensor([[math.nan, 1.0], [1.0, 0.0]])
    head = HeadWeights(None, None, torch.tensor([[0.0, 1.0], [1.0, 1.0], [9.0, 9.0]]), None)
    table = table_of(2, threshold=-2.0)  # everything that is a number leaves at once
    state = ExitState.start(2, 3, 2)
    state = run(impl, hidden, head, table, state, exit=1, layer=1, keep=keep, gain=gain)
    assert state.exit_layer.tolist() == [0, 1]
    assert state.running.tolist() == [True, False]
    state = run(impl, hidden, head, table, state, exit=2, layer=2, keep=keep, gain=gain)
    assert state.exit_layer.tolist() == [2, 1]
    assert state.prediction[0] == 0
    assert state.logits[0].isnan().all()


@pytest.mark.parametrize("impl", IMPLS)
def test_a_sample_that_left_is_never_touched_again(impl):
    head, table = make_head(8, 3), table_of(3, threshold=0.9)
    step = dict(keep=Keep.AGREE, gain=Gain.CONFIDENCE)
    first = run(
        impl, make_hidden(9, 8), head, table, ExitState.start(9, 3, 3), exit=1, layer=1, **step
    )
    left = first.exit_layer > 0
    assert left.any()
    assert not left.all()
    second = run(impl, torch.full((9, 8), math.nan), head, table, first, exit=3, layer=3, **step)
    for before, after in zip(first[:4], second[:4], strict=True):
        assert torch.equal(before[left], after[left])
    assert (second.exit_layer[~left] == 3).all()


@pytest.mark.parametrize("impl", IMPLS)
def test_rows_say_whose_they_are(impl):
    hidden, head, table = make_hidden(6, 8), make_head(8, 3), table_of(2, threshold=0.6)
    step = dict(exit=1, layer=1, keep=Keep.AGREE, gain=Gain.CONFIDENCE)
    whole = run(impl, hidden, head, table, ExitState.start(6, 3, 2), **step)
    rows = torch.tensor([4, 1, 3])
    part = run(impl, hidden[rows], head, table, ExitState.start(6, 3, 2), rows=rows, **step)
    for a, b in zip(whole[:3], part[:3], strict=True):
        assert torch.equal(a[rows], b[rows])
    others = torch.tensor([0, 2, 5])
    assert part.prediction[others].tolist() == [-1, -1, -1]
    assert part.exit_layer[others].tolist() == [0, 0, 0]


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("pooler", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_alone_gives_what_it_gives_in_a_batch(impl, pooler, dtype):
    hidden, head = make_hidden(33, 96, dtype), make_head(96, 5, dtype, pooler)
    table = table_of(1)
    step = dict(exit=1, layer=1, keep=Keep.NEVER, gain=Gain.CONFIDENCE)
    batch = run(impl, hidden, head, table, ExitState.start(33, 5, 1), **step)
    alone = [run(impl, row[None], head, table, ExitState.start(1, 5, 1), **step) for row in hidden]
    logits = torch.cat([state.logits for state in alone])
    if impl == "cpp":  # its order of summation does not depend on the batch
        assert torch.equal(batch.logits, logits)
    else:
        torch.testing.assert_close(batch.logits, logits)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("rows", [None, torch.empty(0, dtype=torch.int64)])
def test_empty_batch(impl, rows):
    samples = 0 if rows is None else 4
    state = ExitState.start(samples, 3, 2)
    got = run(
        impl, torch.empty(0, 8), make_head(8, 3), table_of(2), state,
        exit=2, layer=2, keep=Keep.NEVER, gain=Gain.ONE, rows=rows,
    )  # fmt: skip
    assert got.prediction.tolist() == [-1] * samples
    assert got.running.tolist() == [False, False]


@pytest.mark.parametrize("impl", IMPLS)
def test_a_changed_table_counts_at_once(impl):
    hidden, head, table = make_hidden(5, 8), make_head(8, 3), table_of(2, threshold=math.inf)
    step = dict(exit=1, layer=1, keep=Keep.NEVER, gain=Gain.CONFIDENCE)
    assert not run(impl, hidden, head, table, ExitState.start(5, 3, 2), **step).exit_layer.any()
    table[0, 1] = 0.0
    assert run(impl, hidden, head, table, ExitState.start(5, 3, 2), **step).exit_layer.all()


@pytest.mark.parametrize("impl", IMPLS)
def test_opcheck(impl):
    op = getattr(torch.ops.eefast.exit_step, impl)
    state = ExitState.start(4, 3, 2)
    args = (
        make_hidden(4, 8), *make_head(8, 3, pooler=True), table_of(2), torch.arange(4),
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


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (bad(hidden=lambda h: h.double()), TypeError, "float64"),
        (bad(hidden=lambda h: h[None]), ValueError, "hidden must be"),
        (bad(hidden=torch.zeros(8, 4).T), ValueError, "hidden must be"),
        (bad(hidden=lambda h: h[:3]), ValueError, "3 rows for 4 samples"),
        (bad(hidden=lambda h: h.bfloat16()), TypeError, "head.weight must be torch.bfloat16"),
        (bad(head=lambda h: h._replace(weight=h.weight[:, :7])), ValueError, "head.weight"),
        (bad(head=lambda h: h._replace(bias=h.bias[:2])), ValueError, "head.bias"),
        (bad(head=lambda h: h._replace(pooler_weight=None)), ValueError, "pooler_weight"),
        (bad(head=lambda h: h._replace(pooler_bias=h.pooler_bias[:2])), ValueError, "pooler_bias"),
        (bad(table=torch.zeros(2, 2)), ValueError, r"table must be contiguous of shape \[2, 3\]"),
        (bad(table=torch.zeros(2, 3).double()), TypeError, "table must be torch.float32"),
        (bad(exit=0), ValueError, r"exit must be in 1\.\.2"),
        (bad(exit=3), ValueError, r"exit must be in 1\.\.2"),
        (bad(layer=0), ValueError, "layer"),
        (bad(layer=1 << 16), ValueError, r"layer must be in 1\.\.65535"),
        (bad(keep=9), ValueError, "9"),
        (bad(gain=9), ValueError, "9"),
        (bad(state=lambda s: s._replace(score=s.score.double())), TypeError, "state.score"),
        (bad(state=lambda s: s._replace(logits=s.logits[:, :2])), ValueError, "state.logits"),
        (bad(state=lambda s: s._replace(running=s.running[:1])), ValueError, "state.running"),
        (bad(rows=torch.tensor([0, 1, 2, 4])), ValueError, r"rows must lie in 0\.\.3"),
        (bad(rows=torch.tensor([0, 1, 2, -1])), ValueError, r"rows must lie in 0\.\.3"),
        (bad(rows=torch.tensor([0, 1, 2, 2])), ValueError, "at most once"),
        (bad(rows=torch.tensor([0, 1])), ValueError, "rows must be"),
    ],
)
def test_bad_arguments_are_refused_and_nothing_is_changed(impl, arguments, error, words):
    arguments = arguments()
    before = [t.clone() for t in arguments["state"]]
    with pytest.raises(error, match=words):
        exit_step(**arguments, impl=impl)
    for old, new in zip(before[:3], arguments["state"][:3], strict=True):
        assert torch.equal(old, new)


def test_implementations_are_explicit():
    with pytest.raises(ValueError, match=r"one of \['cpp', 'reference'\]"):
        implementation("fast")
    with pytest.raises(ValueError, match="impl='reference' runs on any device"):
        implementation("auto", "cuda")
    with pytest.raises(ValueError, match="runs on 'cpu'"):
        implementation("cpp", "cuda")
    with pytest.raises(TypeError, match="float16"):
        implementation("cpp", "cpu", torch.float16)
    assert implementation("auto") is implementation("cpp")
