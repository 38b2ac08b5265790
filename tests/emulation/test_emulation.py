"""What the emulated GPU shows of a kernel: its protocol, its conditions, and planted mistakes."""

import numpy as np
import pytest
import torch

from eefast.ops import Accumulate, ExitState, Gain, Keep, ScorerKind
from tests import emulation
from tests.emulation import prepare
from tests.emulation.apart import STATE, run_apart
from tests.emulation.build import KERNEL, build, load
from tests.emulation.plant import planted
from tests.ops.cases import PARTS, check_parts, copy_of, make_head, make_hidden, run, table_of
from tests.ops.cases import check as step_check

STEP = dict(exit=1, layer=1, keep=Keep.AGREE, gain=Gain.CONFIDENCE)
VOTES_AND_ROW = dict(accumulate=Accumulate.VOTES, scorer_kind=ScorerKind.ROW)


def step_of(*, pooler=True, c=5, d=48, rows=9, extended=False):
    """The arguments of a step in which some samples have left, some leave and some stay; or of one
    that votes and scores, `VOTES_AND_ROW`, and whose head reads the exit before."""
    head = make_head(d, c + extended, pooler=pooler, cascade=c * extended)
    state = ExitState.start(rows, c, 2, votes=extended, memory=extended)
    state.exit_layer[::4] = 7
    if extended:
        state.logits[:] = torch.arange(rows * c).view(rows, c) % 5 / c
        state.votes[:] = torch.arange(rows * c).view(rows, c) % 3
        state.prediction[:] = state.votes.argmax(1)
    return make_hidden(rows, d), head, table_of(2, threshold=0.45), state


@pytest.mark.parametrize("rows", [1, 8, 9, 32])
def test_tiles_of_rows(rows):
    step_check("cuda", *step_of(rows=rows), **STEP)


@pytest.mark.parametrize(("accumulate", "kind", "keep", "gain"), PARTS)
@pytest.mark.parametrize(("c", "cascade"), [(1, False), (3, False), (70, True)])
def test_accumulators_and_scorers(accumulate, kind, keep, gain, c, cascade):
    check_parts(
        "cuda", accumulate, kind, keep, gain, samples=12, classes=c, exits=3, cascade=cascade
    )  # fmt: skip


@pytest.mark.parametrize("pooler", [False, True])
@pytest.mark.parametrize("c", [2, 40, 5000])  # one block, a few, more warps than blocks
@pytest.mark.parametrize("extended", [False, True])
def test_no_order_of_threads_and_blocks_matters(pooler, c, extended):
    step, numbers = step_of(pooler=pooler, c=c, extended=extended), {**STEP}
    if extended:
        numbers.update(VOTES_AND_ROW)
    first = run("cuda", *step, **numbers, seed=0)
    for seed in range(1, 12 if c < 5000 else 3):
        again = run("cuda", *step, **numbers, seed=seed)
        for ours, other in zip(again, first, strict=True):
            assert ours is None or torch.equal(ours, other)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        # the list of running rows is read before it is written
        ("    if (row == 0) running.count = __popc(all);\n  }\n  __syncthreads();",
         "    if (row == 0) running.count = __popc(all);\n  }"),
        # logits behind a pooler are reduced before they are written
        ("logits, as_it_is);\n    __syncthreads();", "logits, as_it_is);"),
        # a block arrives before its warps are done; reads whether it is last before that is written
        ("__shared__ bool is_last;\n  __syncthreads();", "__shared__ bool is_last;"),
        ("is_last = before == gridDim.x - 1;\n  }\n  __syncthreads();",
         "is_last = before == gridDim.x - 1;\n  }"),
        # a block's writes are not visible when it arrives; it does not see the writes of others
        ("    __threadfence();\n    const auto before", "    const auto before"),
        ("1ull);\n    __threadfence();", "1ull);"),
        # not the last block to arrive but the last by number; the last but one
        ("before == gridDim.x - 1", "blockIdx.x == gridDim.x - 1"),
        ("before == gridDim.x - 1", "before == gridDim.x - 2"),
        # arrivals are not reset for the next launch
        ("    step.control[0] = 0;\n", ""),
        # only some threads come to the barrier, or to the shuffle
        ("const bool any_stays = __syncthreads_or(stays);",
         "const bool any_stays = threadIdx.x < 32 ? __syncthreads_or(stays) : stays;"),
        ("exiting = __shfl_sync(kAllLanes, exiting, 0);",
         "if (lane() < 16) exiting = __shfl_sync(kAllLanes, exiting, 0);"),
        # lanes read a score that lane 0 may have written already
        ("  if (lane() == 0) {\n    now.agrees", "  {\n    now.agrees"),
        # a vote is cast while other lanes read the votes
        ("lane() == vote % kWarpSize) votes", "lane() == 0) votes"),
        # what the exit before left makes way while other lanes read it
        ("    __syncwarp();  // all lanes have read it\n", ""),
        # rows of exited samples
        ("runs = step.exit_layer[sample] == 0;", "runs = true;"),
        # the tile of another row
        ("out[(row + lane())", "out[lane()"),
    ],
)  # fmt: skip
def test_a_planted_mistake_is_found(right, wrong, tmp_path):
    kernel = planted(KERNEL.read_text(), right, wrong)
    calls = [
        prepare(*step_of(rows=20, extended=more), **STEP, **(VOTES_AND_ROW if more else {}))
        for _ in range(20)
        for more in (False, True)
    ]
    got, error = run_apart(build(kernel), calls, tmp_path)
    for call in calls[:2]:
        load().exit_step(call, 0)
    assert error or any(
        call[name] is not None and not np.array_equal(call[name], same[name], equal_nan=True)
        for call, same in zip(got, calls[:2] * 20, strict=True)
        for name in STATE
    )


@pytest.mark.parametrize(
    ("right", "wrong", "words"),
    [
        ("const bool any_stays = __syncthreads_or(stays);",
         "const bool any_stays = threadIdx.x < 32 ? __syncthreads_or(stays) : stays;",
         "in __syncthreads_or at line .* waits for threads that have returned"),
        ("  __syncthreads();\n  return is_last;",
         "  if (lane() == 0) { __syncthreads(); } else { \n__syncthreads(); }\n  return is_last;",
         "in __syncthreads at line .* waits at another barrier than thread 0"),
        ("exiting = __shfl_sync(kAllLanes, exiting, 0);",
         "if (lane() < 16) exiting = __shfl_sync(kAllLanes, exiting, 0);",
         "in a shuffle at line .* waits for lanes that do not come"),
    ],
)  # fmt: skip
def test_a_deadlock_says_who_waits_where(right, wrong, words):
    with pytest.raises(RuntimeError, match=f"deadlock: thread .* of block .*{words}"):
        emulation.exit_step(*step_of(), **STEP, kernel=planted(KERNEL.read_text(), right, wrong))


@pytest.mark.parametrize("pooler", [False, True])
@pytest.mark.parametrize(("threshold", "value"), [(0.0, 0), (2.0, 1)])
def test_the_condition_is_set_once_to_whether_any_sample_runs(pooler, threshold, value):
    hidden, head = make_hidden(9, 8), make_head(8, 3, pooler=pooler)
    table, state = table_of(2, threshold=threshold), ExitState.start(9, 3, 2)
    control = torch.tensor([[0, 2**63 - 1], [0, 77]])
    state = state._replace(control=control)
    assert emulation.exit_step(hidden, head, table, state, **STEP) == [(2**63 - 1, value)]
    assert control.tolist() == [[0, 2**63 - 1], [0, 77]]


def test_the_condition_is_set_when_no_row_runs_too():
    head, table, state = make_head(8, 3), table_of(2), ExitState.start(9, 3, 2)
    state.exit_layer.fill_(1)
    state = state._replace(control=torch.tensor([[0, 5], [0, 0]]))
    before = copy_of(state)
    for running in (False, True):  # of rows that came in another call
        state.running[0] = running
        assert emulation.exit_step(make_hidden(9, 8), head, table, state, **STEP) == [(5, running)]
    for ours, start in zip(state[:4], before[:4], strict=True):
        assert torch.equal(ours, start)


def test_no_condition_is_set_without_a_handle():
    state = ExitState.start(9, 3, 2)
    assert not emulation.exit_step(make_hidden(9, 8), make_head(8, 3), table_of(2), state, **STEP)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("stride", [64, 65])
def test_rows_that_are_not_aligned(dtype, shift, stride):
    storage = make_hidden(1, 10 * stride, dtype)[0]
    hidden = storage.as_strided([9, 64], [stride, 1], shift)
    head, step = make_head(64, 3, dtype), {**STEP, "exit": 2}
    start = ExitState.start(9, 3, 2)
    straight = run("cuda", hidden.contiguous(), head, table_of(2), start, **step)
    got = run("cuda", hidden, head, table_of(2), start, **step)
    torch.testing.assert_close(got.logits, straight.logits)


def test_more_rows_than_lanes_are_refused():
    with pytest.raises(ValueError, match="up to 32 rows, got 33"):
        emulation.exit_step(*step_of(rows=33), **STEP)
