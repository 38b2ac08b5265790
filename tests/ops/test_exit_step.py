"""Every implementation of the exit step against the float64 oracle, over the same cases."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eefast.ops import ExitState, Gain, HeadWeights, Keep, Recurrence, ScorerKind
from tests.ops import oracle
from tests.ops.cases import (
    IMPLS,
    IMPLS_AND_DTYPES,
    check,
    goes_together,
    make_head,
    make_hidden,
    run,
    run_in_place,
    table_of,
)


def few_rows(impl, otherwise):
    """Triton's interpreter runs programs, one a row, in 30 ms each."""
    return 4 if impl == "triton" else otherwise


# Those that need neither votes nor a learned score; test_parts.py has the others.
KINDS = [(keep, gain) for keep in Keep for gain in Gain if goes_together(Recurrence(keep, gain))]

# Every pair of a width, a number of classes, and whether there is a pooler.
SIZES = [
    (d, exit, c, (i + j) % 2 == 1)
    for i, (d, exit) in enumerate([(1, 1), (33, 3), (160, 1)])  # one lane, an odd tail
    for j, c in enumerate([1, 2, 3, 300])
]


@pytest.mark.parametrize(("impl", "dtype"), IMPLS_AND_DTYPES)
@pytest.mark.parametrize(("d", "exit", "c", "pooler"), SIZES)
def test_sizes(impl, dtype, pooler, d, c, exit):
    rows = few_rows(impl, 7)
    check(
        impl, make_hidden(rows, d, dtype), make_head(d, c, dtype, pooler),
        table_of(3, threshold=0.45), ExitState.start(rows, c, 3),
        exit=exit, layer=exit, keep=Keep.AGREE, gain=Gain.CONFIDENCE,
    )  # fmt: skip


BERT = [(impl, dtype) for impl, dtype in IMPLS_AND_DTYPES if dtype != torch.float16]


@pytest.mark.parametrize(("impl", "dtype"), BERT)
def test_the_size_of_bert(impl, dtype):
    check(
        impl, make_hidden(3, 768, dtype), make_head(768, 3, dtype, pooler=True),
        table_of(3, threshold=0.45), ExitState.start(3, 3, 3),
        exit=1, layer=1, keep=Keep.AGREE, gain=Gain.CONFIDENCE,
    )  # fmt: skip


@pytest.mark.parametrize("impl", IMPLS)
def test_thousands_of_classes(impl):
    check(
        impl, make_hidden(2, 8), make_head(8, 6000), table_of(1), ExitState.start(2, 6000, 1),
        exit=1, layer=1, keep=Keep.AGREE, gain=Gain.CONFIDENCE,
    )  # fmt: skip


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("scale", [1e-4, 1e-2, 3.0])
def test_poolers_of_all_sizes(impl, scale):
    """tanh keeps its digits near 0, where heads may amplify small numbers."""
    hidden, head = make_hidden(7, 64), make_head(64, 3, pooler=True, pooler_scale=scale)
    check(
        impl, hidden, head, table_of(1), ExitState.start(7, 3, 1),
        exit=1, layer=1, keep=Keep.NEVER, gain=Gain.CONFIDENCE,
    )  # fmt: skip


OUTPUTS = [  # of six exits; agreements in a row at each; the exit that answers when two are wanted
    ([1.0, 1.25, 1.5, 9.0, 9.0, 9.0], [0, 1, 2], 3),
    ([0.0, 0.0, -0.25, 9.0, 9.0, 9.0], [0, 1, 2], 3),  # the first exit has none to agree with
    ([1.0, 1.5, 1.25, 1.0, 9.0, 9.0], [0, 0, 1, 2], 4),  # 0.5 is not less than tau
    ([0.0, 0.25, 9.0, 9.25, 9.5, 7.0], [0, 1, 0, 1, 2], 5),
    ([1.0, math.nan, 1.0, 1.25, 1.25, 7.0], [0, 0, 0, 1, 2], 5),
    ([math.inf, math.inf, math.inf, 1.0, 1.25, 7.0], [0, 0, 0, 0, 1, 0], 6),
    ([-1.0, 1.0, -1.0, 1.0, -1.0, 1.0], [0] * 6, 6),
]


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("kind", [ScorerKind.NONE, ScorerKind.ROW])
def test_one_output_agrees_where_it_moves_by_less_than_tau(impl, kind):
    """Regression, PABEE's Eq. 3 with patience 2 and tau 0.5."""
    outputs, counts, exits = zip(*OUTPUTS, strict=True)
    z, n = torch.tensor(outputs).T, len(exits)
    weight = torch.ones(1 + (kind is ScorerKind.ROW), 1)
    table, state = table_of(6, threshold=2.0, tau=0.5), ExitState.start(n, 1, 6)
    samples = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    for exit in range(1, 7):
        state = run(
            impl, z[exit - 1, samples, None], HeadWeights(None, None, weight, None), table, state,
            exit=exit, layer=exit, keep=Keep.AGREE, gain=Gain.AGREE, scorer_kind=kind, rows=samples,
        )  # fmt: skip
        running = [number for number in range(n) if exits[number] > exit]
        assert [state.score[i].item() for i in running] == [counts[i][exit - 1] for i in running]
    assert state.exit_layer.tolist() == list(exits)
    assert state.score.tolist() == [count[-1] for count in counts]
    wanted = torch.tensor([z[exit - 1, number] for number, exit in enumerate(exits)])
    torch.testing.assert_close(state.logits[:, 0], wanted, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(
    ("keep", "gain", "strict"),
    [(*kind, False) for kind in KINDS] + [(*kind, True) for kind in KINDS if kind[0] is Keep.AGREE],
)
def test_every_kind_over_all_exits(impl, keep, gain, strict):
    exits, samples = 3, few_rows(impl, 16)
    threshold = -0.5 if gain is Gain.NEGATIVE_ENTROPY else 1.5  # what two indicators reach
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
@settings(max_examples=30)
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
        run_in_place(impl, z, head, table, got, **step)
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
@pytest.mark.parametrize("c", [1, 2, 40])
def test_an_infinite_logit_never_exits_early(impl, c):
    head = HeadWeights(None, None, torch.zeros(c, 4), torch.zeros(c))
    head.bias[c // 2] = math.inf
    state = ExitState.start(1, c, 2)
    step = dict(layer=1, keep=Keep.NEVER, gain=Gain.CONFIDENCE)
    got = run(impl, torch.ones(1, 4), head, table_of(2, threshold=0.5), state, exit=1, **step)
    assert got.exit_layer.item() == 0
    assert got.score.isnan().all()
    got = run(impl, torch.ones(1, 4), head, table_of(2, threshold=0.5), state, exit=2, **step)
    assert (got.exit_layer.item(), got.prediction.item()) == (1, c // 2)


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
    table = table_of(2, threshold=-2.0)  # every sample without NaN exits at once
    state = ExitState.start(2, 3, 2)
    state = run(impl, hidden, head, table, state, exit=1, layer=1, keep=keep, gain=gain)
    assert state.exit_layer.tolist() == [0, 1]
    assert state.running.tolist() == [True, False]
    state = run(impl, hidden, head, table, state, exit=2, layer=2, keep=keep, gain=gain)
    assert state.exit_layer.tolist() == [2, 1]
    assert state.prediction[0] == 0
    assert state.logits[0].isnan().all()


@pytest.mark.parametrize("impl", IMPLS)
def test_the_first_nan_among_numbers_is_the_prediction(impl):
    bias = -torch.arange(70.0)
    bias[[40, 50]] = math.nan
    got = run(
        impl, torch.zeros(2, 5), HeadWeights(None, None, torch.zeros(70, 5), bias), table_of(1),
        ExitState.start(2, 70, 1), exit=1, layer=1, keep=Keep.NEVER, gain=Gain.CONFIDENCE,
    )  # fmt: skip
    assert got.prediction.tolist() == [40, 40]
    assert got.score.isnan().all()


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(("c", "out"), [(4, slice(1, 3)), (200, slice(64, 192))])
def test_a_class_that_is_ruled_out_adds_nothing(impl, c, out):
    bias = torch.zeros(c)
    bias[out] = -math.inf
    got = run(
        impl, torch.zeros(1, 5), HeadWeights(None, None, torch.zeros(c, 5), bias), table_of(1),
        ExitState.start(1, c, 1), exit=1, layer=1, keep=Keep.NEVER, gain=Gain.NEGATIVE_ENTROPY,
    )  # fmt: skip
    left = bias.isfinite().sum().item()
    assert got.score.item() == pytest.approx(-math.log(left) / math.log(c))


FEW_AND_MANY = [(3, 0.9), (600, 0.1)]  # classes, and a threshold that some samples reach


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(("c", "threshold"), FEW_AND_MANY)
def test_an_exited_sample_is_never_touched_again(impl, c, threshold):
    head, table = make_head(8, c), table_of(3, threshold=threshold)
    step = dict(keep=Keep.AGREE, gain=Gain.CONFIDENCE)
    first = run(
        impl, make_hidden(9, 8), head, table, ExitState.start(9, c, 3), exit=1, layer=1, **step
    )
    left = first.exit_layer > 0
    assert left.any()
    assert not left.all()
    second = run(impl, torch.full((9, 8), math.nan), head, table, first, exit=3, layer=3, **step)
    for before, after in zip(first[:4], second[:4], strict=True):
        assert torch.equal(before[left], after[left])
    assert (second.exit_layer[~left] == 3).all()


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(("c", "threshold"), FEW_AND_MANY)
def test_rows_say_whose_they_are(impl, c, threshold):
    hidden, head, table = make_hidden(6, 8), make_head(8, c), table_of(2, threshold=threshold)
    step = dict(exit=1, layer=1, keep=Keep.AGREE, gain=Gain.CONFIDENCE)
    whole = run(impl, hidden, head, table, ExitState.start(6, c, 2), **step)
    rows = torch.tensor([4, 1, 3])
    part = run(impl, hidden[rows], head, table, ExitState.start(6, c, 2), rows=rows, **step)
    for a, b in zip(whole[:3], part[:3], strict=True):
        torch.testing.assert_close(a[rows], b[rows])  # products may depend on the batch
    others = torch.tensor([0, 2, 5])
    assert part.prediction[others].tolist() == [-1, -1, -1]
    assert part.exit_layer[others].tolist() == [0, 0, 0]


@pytest.mark.parametrize(("impl", "dtype"), IMPLS_AND_DTYPES)
@pytest.mark.parametrize("pooler", [False, True])
def test_the_head_reads_the_token_asked_for(impl, dtype, pooler):
    lengths = torch.tensor([3, 1, 5, 2])  # ragged, flattened; rows are strided, as of a slice
    ends = lengths.cumsum(0)
    tokens = make_hidden(2 * 11, 33, dtype).reshape(11, 2 * 33)[:, :33]
    head = make_head(33, 3, dtype, pooler)
    step = dict(exit=2, layer=2, keep=Keep.NEVER, gain=Gain.ONE)
    start = ExitState.start(4, 3, 2)
    check(impl, tokens, head, table_of(2), start, offsets=ends - lengths, **step)
    offsets = torch.tensor([10, 0, 4, 4])
    got = check(impl, tokens, head, table_of(2), start, offsets=offsets, **step)
    alone = run(impl, tokens[offsets], head, table_of(2), start, **step)
    torch.testing.assert_close(got.logits, alone.logits)
    # By row of the call, whichever sample that is.
    rows, two = torch.tensor([3, 1]), torch.tensor([6, 2])
    check(impl, tokens, head, table_of(2), start, offsets=two, rows=rows, **step)
    # Without offsets, the first token of each row.
    hidden = make_hidden(4 * 5, 33, dtype).unflatten(0, (4, 5))
    assert torch.equal(
        check(impl, hidden, head, table_of(2), start, **step).logits,
        run(impl, hidden[:, 0], head, table_of(2), start, **step).logits,
    )


@pytest.mark.parametrize("impl", [impl for impl in IMPLS if impl != "reference"])
@pytest.mark.parametrize("c", [2, 5, 600])
@pytest.mark.parametrize("gap", [5.0, 20.0, 60.0])
def test_entropy_is_accurate_when_one_logit_dominates(impl, c, gap):
    """To all of float32's digits, where p ln p of a rounded softmax has lost them all."""
    z = torch.zeros(1, c)
    z[0, c // 2] = gap
    got = run(
        impl, z, HeadWeights(None, None, torch.eye(c), None), table_of(2),
        ExitState.start(1, c, 2), exit=1, layer=1, keep=Keep.NEVER, gain=Gain.NEGATIVE_ENTROPY,
    )  # fmt: skip
    rest = (c - 1) * math.exp(-gap)
    entropy = (math.log1p(rest) + gap * rest / (1 + rest)) / math.log(c)
    assert -got.score.item() == pytest.approx(entropy, rel=1e-5)


@pytest.mark.parametrize(("impl", "dtype"), IMPLS_AND_DTYPES)
@pytest.mark.parametrize("pooler", [False, True])
def test_a_row_alone_gives_what_it_gives_in_a_batch(impl, pooler, dtype):
    # All that cuda takes; one more than cpp takes at a time.
    rows = few_rows(impl, 32 if impl == "cuda" else 33)
    hidden, head = make_hidden(rows, 96, dtype), make_head(96, 5, dtype, pooler)
    table = table_of(1)
    step = dict(exit=1, layer=1, keep=Keep.NEVER, gain=Gain.CONFIDENCE)
    batch = run(impl, hidden, head, table, ExitState.start(rows, 5, 1), **step)
    alone = [run(impl, row[None], head, table, ExitState.start(1, 5, 1), **step) for row in hidden]
    logits = torch.cat([state.logits for state in alone])
    if impl in ("cpp", "cuda"):  # whose order of summation does not depend on the batch
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
