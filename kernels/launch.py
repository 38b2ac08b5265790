"""Which kernels run for a call of the op, and with which blocks.

With EEFAST_AUTOTUNE=1 in the environment before the first import, the two kernels that multiply
matrices try blocks at the first call of each shape instead of using the ones written here. That
call synchronises, so make it before capturing a CUDA graph.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import triton
from torch import Tensor

from .device import on_device_of
from .exit_step import exit_step_kernel
from .lm_exit_step import merge_kernel, tiles_kernel
from .policy import SCORER_NETWORK, SCORER_ROW
from .pooler import pooler_kernel

ONE_PROGRAM_OUTPUTS = 128
"""Up to so many rows of weights one program computes the head of a row by itself. Beyond, they come
in faster through many programs than a second launch costs."""

_FEW_OUTPUTS = {
    2: "log-probabilities",
    3: "a temperature",
    4: "mean probabilities",
    5: "mean probabilities of a streak",
    6: "the most confident exit",
}
"""The accumulators that only those heads have, by their numbers in `policy`."""

_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
_AUTOTUNED = os.environ.get("EEFAST_AUTOTUNE") == "1"

if _AUTOTUNED:
    # Both only write scratch and logits, always the same: running them again does no harm.
    _configs = [
        triton.Config({"BLOCK_K": block_k}, num_warps=num_warps, num_stages=num_stages)
        for block_k in (32, 64, 128, 256)
        for num_warps in (2, 4, 8)
        for num_stages in (2, 3, 4)
    ]
    pooler_kernel = triton.autotune(_configs, key=["width", "count"])(pooler_kernel)
    tiles_kernel = triton.autotune(_configs, key=["classes", "width", "count"])(tiles_kernel)

# A head's products are one pass over the weights: enough bytes in flight are what counts. The rows
# are the least that a matrix product takes.
_MATRIX = {"BLOCK_R": 16, "BLOCK_N": 64, "num_warps": 4, "num_stages": 3}
_TUNED = ("BLOCK_K", "num_warps", "num_stages")
_BLOCK_K = 128
_BLOCK_K_FLOAT32 = 64  # tiles are twice as large
_BLOCK_K_REGISTERS = 32  # not aligned, weights pass through registers
_BLOCK_K_CONVERTED = 16  # and converted on the way, they take even more of them
POOLER_BLOCK_N = 16  # a pooler has few outputs: smaller tiles, to keep all processors busy


def launch_exit_step(
    hidden: Tensor,
    offsets: Tensor | None,
    pooler_weight: Tensor | None,
    pooler_bias: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    cascade: Tensor | None,
    scorer: Tensor | None,
    table: Tensor,
    rows: Tensor | None,
    step: int,
    score: Tensor,
    prediction: Tensor,
    exit_layer: Tensor,
    logits: Tensor,
    running: Tensor,
    votes: Tensor | None,
    memory: Tensor | None,
    control: Tensor | None,
    *,
    pdl: bool = False,  # until a GPU has measured its gain
) -> None:
    """The op `eefast::exit_step.triton`: one launch; with a pooler two; with more than
    `ONE_PROGRAM_OUTPUTS` rows of weights one more.

    `offsets` and `rows` are taken at their word: they lie on the device. So does a conditional
    handle in `control`, which only `cuda` sets.

    Raises:
        ValueError: a cascade, a network scorer, or an accumulator other than votes, over too many
            classes; nothing has changed.
    """
    # The bits of eefast.ops.Step.
    exit, layer = step & 0xFFFF, step >> 16 & 0xFFFF
    keep, gain, strict = step >> 32 & 0xFF, step >> 40 & 0xFF, step >> 48 & 1
    accumulate, scorer_kind = step >> 49 & 7, step >> 52 & 3
    outputs, classes, width = weight.shape[0], logits.shape[1], hidden.shape[-1]
    if outputs > ONE_PROGRAM_OUTPUTS:
        _refuse_tiles(outputs, cascade, accumulate, scorer_kind)
    count = hidden.shape[0] if offsets is None else offsets.shape[0]
    if count == 0:
        return
    row_stride = hidden.stride(0)
    policy = (table, exit, table.shape[0], layer, keep, gain, strict)
    state = (
        score, prediction, exit_layer, logits, running,
        votes, memory, 0 if memory is None else memory.shape[1],
    )  # fmt: skip
    parts = {"ACCUMULATE": accumulate, "SCORER": scorer_kind}
    options: dict[str, Any] = {"PDL": pdl, "launch_pdl": pdl} if pdl else {"PDL": False}
    options["enable_fp_fusion"] = True

    with on_device_of(hidden):
        if pooler_weight is not None:
            pooled = torch.empty(count, width, dtype=torch.float32, device=hidden.device)
            blocks = {**_matrix(hidden, pooler_weight), "BLOCK_N": POOLER_BLOCK_N}
            grid = (triton.cdiv(width, POOLER_BLOCK_N), triton.cdiv(count, blocks["BLOCK_R"]))
            pooler_kernel[grid](
                hidden, row_stride, offsets, rows, exit_layer, pooler_weight, pooler_bias, pooled,
                count, width, **blocks, **options,
            )  # fmt: skip
            hidden, row_stride, offsets = pooled, width, None

        if outputs <= ONE_PROGRAM_OUTPUTS:
            units = 0 if scorer is None else scorer.shape[0]
            exit_step_kernel[(count,)](
                hidden, row_stride, offsets, rows, weight, bias, cascade, width, classes, scorer,
                units, *policy, *state, **parts, **one_program_blocks(outputs, width), **options,
            )  # fmt: skip
            return

        blocks = _matrix(hidden, weight)
        tiles = triton.cdiv(outputs, blocks["BLOCK_N"])

        def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=hidden.device)

        argmaxima, sums = empty(count, tiles, dtype=torch.int32), empty(3, count, tiles)
        scores = empty(count) if scorer_kind == SCORER_ROW else None
        tiles_kernel[(tiles, triton.cdiv(count, blocks["BLOCK_R"]))](
            hidden, row_stride, offsets, rows, exit_layer, weight, bias, argmaxima, sums, scores,
            None if accumulate else logits, count, width, classes, tiles, **blocks, **options,
        )  # fmt: skip
        merge_kernel[(count,)](
            argmaxima, sums, scores, rows, count, classes, tiles, *policy, *state,
            **parts, **merge_blocks(tiles), **options,
        )  # fmt: skip


def _refuse_tiles(outputs: int, cascade: Tensor | None, accumulate: int, scorer: int) -> None:
    """What one program does to all logits of a row is refused where they lie in many programs."""
    what = _FEW_OUTPUTS.get(accumulate) if scorer != SCORER_NETWORK else "a network scorer"
    if cascade is not None:
        what = "a cascade"
    if what is not None:
        raise ValueError(
            f"impl='triton' takes {what} for heads of up to {ONE_PROGRAM_OUTPUTS} outputs, got "
            f"{outputs}; impl='cuda' (up to 32 rows) and impl='reference' take any number"
        )


def one_program_blocks(outputs: int, width: int) -> dict[str, int]:
    """Blocks of `exit_step_kernel`: as much of the width at once as the registers hold."""
    block_c = triton.next_power_of_2(outputs)
    return {
        "BLOCK_C": block_c,
        "BLOCK_K": min(triton.next_power_of_2(width), max(4096 // block_c, 32)),
        "num_warps": 4,
    }


def merge_blocks(tiles: int) -> dict[str, int]:
    """Blocks of `merge_kernel`: all tiles of a row at once."""
    block_t = triton.next_power_of_2(tiles)
    return {"BLOCK_T": block_t, "num_warps": 8 if block_t > 1024 else 4}


def _matrix(hidden: Tensor, weight: Tensor) -> dict[str, int]:
    """Blocks of the kernels that multiply matrices. Both operands are of one precision; what was
    pooled is float32. (The interpreter multiplies bfloat16 wrongly, so it gets float32 too.)"""
    in_float32 = _INTERPRETED or hidden.dtype != weight.dtype
    if hidden.dtype != weight.dtype:
        block_k = _BLOCK_K_CONVERTED
    elif weight.shape[1] % 16:
        block_k = _BLOCK_K_REGISTERS
    else:
        block_k = _BLOCK_K_FLOAT32 if weight.dtype == torch.float32 else _BLOCK_K
    chosen = {**_MATRIX, "BLOCK_K": block_k, "IN_FLOAT32": in_float32}
    if _AUTOTUNED:
        for name in _TUNED:
            del chosen[name]
    return chosen
