"""The exit step on a GPU, against the oracle."""

import math

import pytest
import torch

from eefast.ops import Accumulate, ExitState, Gain, Keep, ScorerKind, exit_step
from eefast.ops.implementations import implementation
from eefast.ops.step import Step
from tests.ops import oracle
from tests.ops.cases import assert_same, copy_of, error_budget, make_head, make_hidden, table_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

IMPLS = ["triton", "cuda"]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(params=IMPLS)
def impl(request):
    if torch.cuda.is_available():
        try:
            implementation(request.param, "cuda")
        except RuntimeError as not_built:
            pytest.skip(str(not_built))
    return request.param


def on_gpu(arguments):
    """A tuple of tensors on the GPU, strides and all, of the type it has."""
    moved = [None if t is None else t.cuda() for t in arguments]
    return type(arguments)(*moved)


def strided_on_gpu(hidden):
    """`cuda()` of a view would be contiguous: the rows are taken from what they are rows of."""
    storage = hidden.as_strided([hidden.untyped_storage().size() // hidden.element_size()], [1], 0)
    return storage.cuda().as_strided(hidden.shape, hidden.stride(), hidden.storage_offset())


def gpu_state(samples, classes, exits):
    return ExitState.start(samples, classes, exits, "cuda")


def run(impl, hidden, head, table, state, **step):
    """The state after one step on the GPU, on the CPU."""
    got = on_gpu(state)._replace(control=gpu_state(0, 1, len(table)).control)
    step = {name: v.cuda() if isinstance(v, torch.Tensor) else v for name, v in step.items()}
    exit_step(strided_on_gpu(hidden), on_gpu(head), table.cuda(), got, **step, impl=impl)
    assert (got.control[:, 0] == 0).all()
    return ExitState(*(None if t is None else t.cpu() for t in got._replace(control=None)))


def check(impl, hidden, head, table, state, **step):
    want = oracle.exit_step(hidden, head, table, state, **step)
    got = run(impl, hidden, head, table, state, **step)
    assert_same(got, want, error_budget(hidden, head), table[step["exit"] - 1, 1].item())
    return got


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pooler", [False, True])
@pytest.mark.parametrize("d", [1, 33, 768])
@pytest.mark.parametrize("c", [1, 3, 256, 4096])
@pytest.mark.parametrize("rows", [1, 9, 32])
def test_sizes(impl, dtype, pooler, d, c, rows):
    hidden, head = make_hidden(rows, d, dtype), make_head(d, c, dtype, pooler)
    for exit in (1, 3):
        check(
            impl, hidden, head, table_of(3, threshold=0.45), ExitState.start(rows, c, 3),
            exit=exit, layer=exit, keep=Keep.AGREE, gain=Gain.CONFIDENCE,
        )  # fmt: skip


@pytest.mark.parametrize("impl", ["triton"], indirect=True)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pooler", [False, True])
@pytest.mark.parametrize("rows", [1, 70])
def test_a_vocabulary(impl, dtype, pooler, rows):
    check(
        impl, make_hidden(rows, 64, dtype), make_head(64, 50257, dtype, pooler), table_of(1),
        ExitState.start(rows, 50257, 1), exit=1, layer=1, keep=Keep.NEVER, gain=Gain.CONFIDENCE,
    )  # fmt: skip


@pytest.mark.parametrize("keep", [k for k in Keep if k is not Keep.NOT_SCORE])
@pytest.mark.parametrize("gain", [g for g in Gain if g not in (Gain.SCORE, Gain.VOTES)])
@pytest.mark.parametrize("strict", [False, True])
def test_every_kind_over_all_exits(impl, keep, gain, strict):
    threshold = -0.5 if gain is Gain.NEGATIVE_ENTROPY else 1.25
    table, state = table_of(4, weight=0.75, threshold=threshold), ExitState.start(24, 3, 4)
    for exit in range(1, 5):
        state = check(
            impl, make_hidden(24, 16, seed=exit), make_head(16, 3, seed=exit), table, state,
            exit=exit, layer=3 * exit, keep=keep, gain=gain, strict=strict,
        )  # fmt: skip
    assert (state.exit_layer > 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pooler", [False, True])
def test_rows_and_offsets(impl, dtype, pooler):
    tokens, head = make_hidden(4 * 5, 40, dtype), make_head(40, 3, dtype, pooler)
    step = dict(exit=2, layer=2, keep=Keep.NEVER, gain=Gain.ONE)
    start = ExitState.start(4, 3, 2)
    check(impl, tokens.unflatten(0, (4, 5)), head, table_of(2), start, **step)
    check(impl, tokens, head, table_of(2), start, offsets=torch.tensor([4, 5, 12, 18]), **step)
    rows, offsets = torch.tensor([3, 1]), torch.tensor([18, 18])
    check(impl, tokens, head, table_of(2), start, offsets=offsets, rows=rows, **step)


PARTS = [
    (Accumulate.VOTES, ScorerKind.NONE, Keep.NEVER, Gain.VOTES),
    (Accumulate.VOTES, ScorerKind.ROW, Keep.CONFIDENCE_ABOVE, Gain.SCORE),
    (Accumulate.LOG_PROBABILITIES, ScorerKind.NONE, Keep.AGREE, Gain.CONFIDENCE),
    (Accumulate.LOG_PROBABILITIES, ScorerKind.ROW, Keep.NOT_SCORE, Gain.SCORE),
    (Accumulate.NONE, ScorerKind.NETWORK, Keep.NOT_SCORE, Gain.SCORE),
    (Accumulate.VOTES, ScorerKind.NETWORK, Keep.AGREE, Gain.CONFIDENCE),
]


@pytest.mark.parametrize(("accumulate", "kind", "keep", "gain"), PARTS)
@pytest.mark.parametrize("c", [1, 3, 100, 500])
def test_accumulators_and_scorers(impl, accumulate, kind, keep, gain, c):
    if c == 1 and accumulate and keep is Keep.AGREE:
        pytest.skip("refused: tests/ops/test_arguments.py")
    network = kind is ScorerKind.NETWORK
    if impl == "triton" and c > 128 and (network or accumulate is Accumulate.LOG_PROBABILITIES):
        pytest.skip("refused: tests/kernels")
    table = table_of(4, weight=0.75, threshold=1.7 if gain is Gain.VOTES else 0.6)
    state = ExitState.start(24, c, 4, votes=bool(accumulate) or network, memory=bool(kind))
    g = torch.Generator().manual_seed(3)
    for exit in range(1, 5):
        head = make_head(16, c + (kind is ScorerKind.ROW), seed=exit)
        state = check(
            impl, make_hidden(24, 16, seed=exit), head, table, state, exit=exit, layer=exit,
            keep=keep, gain=gain, accumulate=accumulate, scorer_kind=kind,
            scorer=torch.randn(5, c + exit + 4, generator=g) * 0.3 if network else None,
        )  # fmt: skip
    assert state.exit_layer.all()


def test_nan_never_exits_early(impl):
    hidden, head, table = make_hidden(3, 8), make_head(8, 3), table_of(2, threshold=-2.0)
    hidden[1, 4] = math.nan
    step = dict(layer=1, keep=Keep.ALWAYS, gain=Gain.CONFIDENCE)
    state = run(impl, hidden, head, table, ExitState.start(3, 3, 2), exit=1, **step)
    assert state.exit_layer.tolist() == [1, 0, 1]
    state = run(impl, hidden, head, table, state, exit=2, **step)
    assert state.exit_layer.all()
    assert state.logits[1].isnan().all()


def test_no_synchronisation(impl):
    hidden, head, table = make_hidden(3, 8).cuda(), on_gpu(make_head(8, 3)), table_of(2).cuda()
    state, step = gpu_state(3, 3, 2), Step(1, 1, Keep.AGREE, Gain.CONFIDENCE).pack()
    op = implementation(impl, "cuda", rows=3, classes=3)
    op(
        hidden, None, *head, None, table, None, step, *state
    )  # what is compiled or loaded at first use
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        op(hidden, None, *head, None, table, None, step, *state)
    finally:
        torch.cuda.set_sync_debug_mode(before)


@pytest.mark.parametrize("pooler", [False, True])
def test_a_captured_step_reads_the_table_when_it_is_replayed(impl, pooler):
    hidden, head = make_hidden(5, 768).cuda(), on_gpu(make_head(768, 3, pooler=pooler))
    table, state = table_of(2, threshold=math.inf).cuda(), gpu_state(5, 3, 2)
    fresh = copy_of(state)
    step = Step(1, 1, Keep.NEVER, Gain.CONFIDENCE).pack()
    op = implementation(impl, "cuda", rows=5, classes=3)

    def step_once():
        op(hidden, None, *head, None, table, None, step, *state)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step_once()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step_once()
    for threshold, exits in ((math.inf, False), (0.0, True), (math.inf, False)):
        for tensor, start in zip(state, fresh, strict=True):
            tensor.copy_(start)
        table[0, 1] = threshold
        graph.replay()
        assert state.exit_layer.tolist() == [int(exits)] * 5
        assert state.running.tolist() == [not exits, False]


@pytest.mark.parametrize("impl", ["cuda"], indirect=True)
def test_the_cuda_op_refuses_what_it_cannot_take(impl):
    head, table = on_gpu(make_head(8, 3)), table_of(2).cuda()
    step = Step(1, 1, Keep.AGREE, Gain.CONFIDENCE).pack()
    op = implementation(impl, "cuda")

    def call(rows, **changes):
        state = gpu_state(rows, 3, 2)._replace(**changes)
        op(make_hidden(rows, 8).cuda(), None, *head, None, table, None, step, *state)

    with pytest.raises(RuntimeError, match="up to 32 rows, got 33; impl='triton'"):
        call(33)
    with pytest.raises(RuntimeError, match="needs control"):
        call(4, control=None)
    with pytest.raises(RuntimeError, match="score must be on the same device as hidden"):
        call(4, score=torch.zeros(4))
