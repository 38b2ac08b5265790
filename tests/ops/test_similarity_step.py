"""The similarity step: every implementation against a loop in float64."""

import math

import pytest
import torch
import torch.nn.functional as F

from eefast.ops import (
    ExitState,
    Gain,
    Keep,
    SimilarityState,
    Step,
    exit_step,
    implementation,
    similarity_step,
)
from tests.ops.cases import DTYPES, F32, make_head, make_hidden, table_of

IMPLS = [impl for impl in DTYPES if impl != "cuda"]
IMPLS_AND_DTYPES = [(impl, dtype) for impl in IMPLS for dtype in DTYPES[impl]]
SETS = torch.ops.eefast.cpp_instruction_sets()


def oracle(vectors, state, weight, threshold, last, layer, strict, rows):
    """The state after one exit, by a loop over the rows in float64."""
    previous, score, exit_layer = (t.clone() for t in state[:3])
    score, still_running = score.double(), False
    for vector, n in zip(vectors, rows, strict=True):
        if exit_layer[n]:
            continue
        x, y = vector.double(), previous[n].double()
        norms = max(x.norm().item(), 1e-8) * max(y.norm().item(), 1e-8)
        score[n] = weight * torch.dot(x, y).item() / norms
        previous[n] = vector.float()
        if last or score[n] > threshold or (not strict and score[n] == threshold):
            exit_layer[n] = layer
        else:
            still_running = True
    return previous, score, exit_layer, still_running


def copy_of(state):
    return SimilarityState(*(t.clone() for t in state))


def run(impl, hidden, table, state, **step):
    """The state after the step; also checks that nothing beside `previous` was written."""
    wide = torch.full([state.previous.numel() + 128], 77.0)
    previous = wide[64:-64].view(state.previous.shape).copy_(state.previous)
    got = copy_of(state)._replace(previous=previous)
    similarity_step(hidden, table, got, impl=impl, **step)
    assert (torch.cat([wide[:64], wide[-64:]]) == 77).all()
    return got


def check(impl, hidden, table, state, *, exit, layer, strict=True, rows=None, offsets=None):
    """Against the oracle; a cosine of float32 errs by a few roundings, sums by sqrt(D) of them."""
    vectors = hidden if offsets is None else hidden[offsets]
    if vectors.dim() == 3:
        vectors = vectors[:, 0]
    weight, threshold = table[exit - 1, :2].tolist()
    named = range(len(vectors)) if rows is None else rows.tolist()
    previous, score, exit_layer, still_running = oracle(
        vectors, state, weight, threshold, exit == len(table), layer, strict, named
    )
    got = run(
        impl, hidden, table, state,
        exit=exit, layer=layer, strict=strict, rows=rows, offsets=offsets,
    )  # fmt: skip
    budget = abs(weight) * F32 * (8 + vectors.shape[-1] ** 0.5)
    sure = ~((score - threshold).abs() <= budget)  # NaN is sure
    assert sure.any() or not len(sure)
    assert torch.equal(got.previous, previous)
    torch.testing.assert_close(got.score.double(), score, atol=budget, rtol=0, equal_nan=True)
    assert torch.equal(got.exit_layer[sure], exit_layer[sure])
    if sure.all():
        assert got.running[exit - 1] == still_running
    return got


def turned(vectors, by, seed):
    """Vectors that a layer has turned a little: each row by another amount, up to `by`."""
    g = torch.Generator().manual_seed(seed)
    amount = torch.linspace(0, by, len(vectors))[:, None]
    return vectors + amount * torch.randn(vectors.shape, generator=g).to(vectors.dtype)


@pytest.mark.parametrize(("impl", "dtype"), IMPLS_AND_DTYPES)
@pytest.mark.parametrize("d", [1, 7, 33, 768])  # one lane, odd tails, BERT
@pytest.mark.parametrize("strict", [False, True])
def test_sizes_over_all_exits(impl, dtype, d, strict):
    state = SimilarityState.start(make_hidden(9, d, dtype), exits=4)
    hidden, table = state.previous, table_of(4, weight=0.75, threshold=0.6)
    for exit in range(1, 5):
        hidden = turned(hidden, 1.5, seed=exit)
        rows = hidden.to(dtype).repeat(1, 2)[:, :d]  # strided, as the first tokens of a model
        state = check(impl, rows, table, state, exit=exit, layer=3 * exit, strict=strict)
    assert (state.exit_layer > 0).all()
    assert len(state.exit_layer.unique()) > 1
    assert not state.running[-1]


@pytest.mark.parametrize("impl", IMPLS)
def test_strict_leaves_a_score_at_the_threshold_running(impl):
    state = SimilarityState.start(torch.tensor([[2.0, 0.0], [0.0, 4.0], [0.0, 4.0]]), exits=2)
    hidden = torch.tensor([[1.0, 0.0], [0.0, 8.0], [1.0, 0.0]])  # cosines 1, 1 and 0, all exact
    table = table_of(2, threshold=1.0)
    got = run(impl, hidden, table, state, exit=1, layer=5, strict=True)
    assert got.score.tolist() == [1, 1, 0]
    assert got.exit_layer.tolist() == [0, 0, 0]
    got = run(impl, hidden, table, state, exit=1, layer=5, strict=False)
    assert got.exit_layer.tolist() == [5, 5, 0]


@pytest.mark.parametrize(("impl", "dtype"), IMPLS_AND_DTYPES)
def test_a_row_alone_gives_what_it_gives_in_a_batch(impl, dtype):
    start, hidden = make_hidden(33, 97, dtype), make_hidden(33, 97, dtype, seed=2)
    step = dict(exit=1, layer=1)
    table = table_of(2, threshold=0.0)
    batch = run(impl, hidden, table, SimilarityState.start(start, 2), **step)
    alone = [
        run(impl, hidden[n : n + 1], table, SimilarityState.start(start[n : n + 1], 2), **step)
        for n in range(33)
    ]
    score = torch.cat([state.score for state in alone])
    if impl == "cpp":
        assert torch.equal(batch.score, score)
    else:
        torch.testing.assert_close(batch.score, score, atol=20 * F32, rtol=0)
    assert torch.equal(batch.exit_layer, torch.cat([state.exit_layer for state in alone]))


@pytest.mark.parametrize("impl", IMPLS)
def test_offsets_and_rows(impl):
    tokens, table = make_hidden(12, 33).repeat(1, 2)[:, :33], table_of(3, threshold=0.1)
    start = SimilarityState.start(make_hidden(4, 33, seed=4), 3)
    step = dict(exit=2, layer=2)
    check(impl, tokens, table, start, offsets=torch.tensor([11, 0, 4, 4]), **step)
    check(impl, tokens.unflatten(0, (4, 3)), table, start, **step)
    rows, offsets = torch.tensor([3, 1]), torch.tensor([7, 2])
    got = check(impl, tokens, table, start, offsets=offsets, rows=rows, **step)
    for ours, before in zip(got[:3], start[:3], strict=True):
        assert torch.equal(ours[[0, 2]], before[[0, 2]])


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("value", [0.0, 1e-25, 1e-9, 1e15, 1e30, math.inf, math.nan])
@pytest.mark.parametrize("d", [5, 64])
def test_extremes_are_those_of_torch(impl, value, d):
    """Zeros, norms below 1e-8, squares that overflow, infinities and NaN, on either side."""
    plain, extreme = torch.ones(1, d), torch.ones(1, d)
    extreme[0, :3] = value
    cases = [(plain, extreme), (extreme, plain), (extreme, extreme), (plain, plain * value)]
    before, after = (torch.cat(side) for side in zip(*cases, strict=True))
    got = run(
        impl, after, table_of(2, weight=-2.0, threshold=-math.inf),
        SimilarityState.start(before, 2), exit=1, layer=1,
    )  # fmt: skip
    want = -2.0 * F.cosine_similarity(after, before)
    torch.testing.assert_close(got.score, want, atol=2 * 16 * F32, rtol=1e-5, equal_nan=True)
    assert torch.equal(got.exit_layer == 0, want.isnan())  # NaN never exits early


@pytest.mark.parametrize("impl", IMPLS)
def test_nan_exits_at_the_last_exit(impl):
    state = SimilarityState.start(torch.ones(2, 3), 2)
    hidden = torch.ones(2, 3)
    hidden[0, 1] = math.nan
    table = table_of(2, threshold=-math.inf)
    state = run(impl, hidden, table, state, exit=1, layer=1)
    assert state.exit_layer.tolist() == [0, 1]
    assert state.running.tolist() == [True, False]
    state = run(impl, torch.ones(2, 3), table, state, exit=2, layer=2)
    assert state.exit_layer.tolist() == [2, 1]
    assert state.score.isnan().tolist() == [True, False]


@pytest.mark.parametrize("impl", IMPLS)
def test_an_exited_sample_is_never_touched_again(impl):
    vectors, table = make_hidden(9, 8), table_of(3, threshold=0.9)
    first = run(
        impl, turned(vectors, 2.0, 1), table, SimilarityState.start(vectors, 3), exit=1, layer=1
    )
    left = first.exit_layer > 0
    assert left.any()
    assert not left.all()
    second = run(impl, torch.full((9, 8), math.nan), table, first, exit=3, layer=3)
    for before, after in zip(first[:3], second[:3], strict=True):
        assert torch.equal(before[left], after[left])
    assert (second.exit_layer[~left] == 3).all()


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("rows", [None, torch.empty(0, dtype=torch.int64)])
def test_empty_batch(impl, rows):
    samples = 0 if rows is None else 4
    state = SimilarityState.start(torch.ones(samples, 8), 2)
    got = run(impl, torch.empty(0, 8), table_of(2), state, exit=2, layer=2, rows=rows)
    assert got.exit_layer.tolist() == [0] * samples
    assert got.running.tolist() == [False, False]


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("dtype", DTYPES["cpp"])
@pytest.mark.parametrize("d", [1, 15, 16, 100])
def test_every_instruction_set(name, dtype, d):
    used = torch.ops.eefast.cpp_use_instruction_set(name)
    try:
        start = SimilarityState.start(make_hidden(5, d, dtype), 2)
        hidden = make_hidden(5, d, dtype, seed=3)
        check("cpp", hidden, table_of(2, threshold=0.05), start, exit=1, layer=1)
    finally:
        torch.ops.eefast.cpp_use_instruction_set(used)


@pytest.mark.parametrize("impl", IMPLS)
def test_answers_are_those_of_a_loop_in_plain_pytorch(impl):
    """MuE end to end: exits by similarity, then the last head over what each exited with."""
    depth, samples, d, c = 4, 16, 6, 3
    embedded, head = make_hidden(samples, d), make_head(d, c, pooler=True)
    # Each turns the vectors less than the one before.
    layers = [
        torch.eye(d) + make_head(d, d, seed=i).weight / (1.5 * i) for i in range(1, depth + 1)
    ]
    table = table_of(depth, threshold=0.93)

    want_layer, want_logits = [], []
    for vector in embedded:
        for i, weight in enumerate(layers, 1):
            before, vector = vector, F.linear(vector, weight)
            if F.cosine_similarity(vector, before, dim=0) > 0.93 or i == depth:
                break
        pooled = F.linear(vector, head.pooler_weight, head.pooler_bias).tanh()
        want_layer.append(i)
        want_logits.append(F.linear(pooled, head.weight, head.bias))
    assert len(set(want_layer)) > 2

    state, hidden, rows = SimilarityState.start(embedded, depth), embedded, torch.arange(samples)
    for i, weight in enumerate(layers, 1):
        hidden = F.linear(hidden, weight)
        step = dict(exit=i, layer=i, strict=True, rows=rows)
        similarity_step(hidden, table, state, **step, impl=impl)
        assert state.running[i - 1] == (state.exit_layer == 0).any()
        left = state.exit_layer[rows] == 0
        hidden, rows = hidden[left], rows[left]
    answer = ExitState.start(samples, c, 1)
    exit_step(
        state.previous, head, table[-1:], answer, exit=1, layer=depth, keep=Keep.NEVER,
        gain=Gain.ONE, impl=impl,
    )  # fmt: skip
    assert state.exit_layer.tolist() == want_layer
    torch.testing.assert_close(answer.logits, torch.stack(want_logits), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("impl", IMPLS)
def test_opcheck(impl):
    op = getattr(torch.ops.eefast.similarity_step, impl)
    state = SimilarityState.start(torch.ones(4, 8), 2)
    step = Step(1, 1, Keep.NEVER, Gain.ONE).pack()
    torch.library.opcheck(op, (make_hidden(4, 8), None, table_of(2), torch.arange(4), step, *state))


def changed(**changes):
    return lambda state: state._replace(**{k: change(state) for k, change in changes.items()})


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"hidden": torch.zeros(4, 8).double()}, TypeError, "float64"),
        ({"hidden": torch.zeros(8, 4).T}, ValueError, "hidden must be"),
        ({"hidden": torch.zeros(3, 8)}, ValueError, "3 rows for 4 samples"),
        ({"hidden": torch.zeros(4, 7)}, ValueError, r"state.previous .* \[4, 7\]"),
        ({"offsets": torch.tensor([0, 1, 2, 4])}, ValueError, r"offsets must lie in 0\.\.3"),
        ({"rows": torch.tensor([0, 1, 2, 4])}, ValueError, r"rows must lie in 0\.\.3"),
        ({"rows": torch.tensor([0, 1, 2, 2])}, ValueError, "at most once"),
        ({"table": torch.zeros(2, 2)}, ValueError, r"table must be contiguous of shape \[2, 3\]"),
        ({"exit": 0}, ValueError, r"exit must be in 1\.\.2"),
        ({"exit": 3}, ValueError, r"exit must be in 1\.\.2"),
        ({"layer": 0}, ValueError, r"layer must be in 1\.\.65535"),
        ({"state": changed(previous=lambda s: s.previous.half())}, TypeError, "state.previous"),
        ({"state": changed(score=lambda s: s.score.double())}, TypeError, "state.score"),
        ({"state": changed(exit_layer=lambda s: s.exit_layer[:3])}, ValueError, "state.exit_layer"),
        ({"state": changed(running=lambda s: s.running[:1])}, ValueError, "state.running"),
    ],
)
def test_bad_arguments_are_refused_and_nothing_is_changed(impl, changes, error, words):
    state = SimilarityState.start(torch.ones(4, 8), 2)
    if "state" in changes:
        state = changes["state"](state)
    before = copy_of(state)
    good = dict(hidden=make_hidden(4, 8), table=table_of(2), exit=1, layer=1)
    with pytest.raises(error, match=words):
        similarity_step(**{**good, **changes, "state": state}, impl=impl)
    for old, new in zip(before, state, strict=True):
        assert torch.equal(old, new)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden": torch.zeros(4, 8, dtype=torch.float16)}, "hidden must be Float or BFloat16"),
        ({"hidden": torch.zeros(4, 9)}, r"previous must be Float \[4, 9\]"),
        ({"offsets": torch.tensor([0, 1, 2, 4])}, r"offsets must be in 0\.\.3, got 4"),
        ({"rows": torch.tensor([0, 1, 2, -1])}, r"rows must be in 0\.\.3, got -1"),
        ({"rows": torch.tensor([0])}, "rows must be"),
        ({"table": torch.zeros(2, 4)}, "table"),
        ({"step": Step(3, 1, Keep.NEVER, Gain.ONE).pack()}, r"exit must be in 1\.\.2, got 3"),
        ({"step": Step(1, 1, Keep.AGREE, Gain.ONE).pack()}, "keep must be NEVER"),
        ({"previous": torch.zeros(3, 8)}, r"previous must be Float \[4, 8\]"),
        ({"exit_layer": torch.zeros(3, dtype=torch.int32)}, "exit_layer"),
        ({"running": torch.zeros(1, dtype=torch.bool)}, "running"),
    ],
)
def test_the_bare_op_never_reads_or_writes_out_of_bounds(changes, words):
    arguments = {
        "hidden": make_hidden(4, 8), "offsets": None, "table": table_of(2), "rows": None,
        "step": Step(1, 1, Keep.NEVER, Gain.ONE).pack(),
        **SimilarityState.start(torch.ones(4, 8), 2)._asdict(), **changes,
    }  # fmt: skip
    with pytest.raises(RuntimeError, match=words):
        implementation("cpp", op="similarity_step")(**arguments)
    assert not arguments["score"].any()
    assert (arguments["exit_layer"] == 0).all()


def test_there_is_no_cuda():
    with pytest.raises(ValueError, match=r"'cuda' has no similarity_step; impl='triton' .* any"):
        implementation("cuda", "cuda", op="similarity_step")
    triton = implementation("triton", "cuda", op="similarity_step")
    assert implementation("auto", "cuda", rows=1, classes=2, op="similarity_step") is triton
    assert implementation("auto", op="similarity_step") is torch.ops.eefast.similarity_step.cpp
