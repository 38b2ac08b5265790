"""Which kernels run for a call of the op, and with which blocks.

With EEFAST_AUTOTUNE=1 in the environment before the first import, the two kernels that multiply
matrices try blocks at the first call of each shape instead of taking the ones written here. That
call synchronises: make it before capturing a CUDA graph.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
from torch import Tensor

from .exit_step import exit_step_kernel
from .lm_exit_step import merge_kernel, tiles_kernel
from .pooler import pooler_kernel

ONE_PROGRAM_CLASSES = 128
"""Up to so many classes one program computes the head of a row by itself. Beyond, its weights come
in faster through many programs than a second launch costs."""

_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
_AUTOTUNED = os.environ.get("EEFAST_AUTOTUNE") == "1"

if _AUTOTUNED:
    # Both only write scratch and logits, the same whenever they run: trying them does no harm.
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
    positions: Tensor | None,
    pooler_weight: Tensor | None,
    pooler_bias: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    table: Tensor,
    rows: Tensor | None,
    step: int,
    score: Tensor,
    prediction: Tensor,
    exit_layer: Tensor,
    logits: Tensor | None,
    running: Tensor,
    control: Tensor | None,
    *,
    pdl: bool = False,  # until a GPU has shown what it gains
) -> None:
    """The op `eefast::exit_step.triton`: one launch; with a pooler two; with more than
    `ONE_PROGRAM_CLASSES` classes one more.

    `positions` and `rows` are taken at their word: they lie on the device. So does a conditional
    handle in `control`, which only `cuda` sets.
    """
    count, width = hidden.shape[0], hidden.shape[-1]
    if count == 0:
        return
    token_stride = hidden.stride(1) if hidden.dim() == 3 else 0
    row_stride = hidden.stride(0)
    # The bits of eefast.ops.Step.
    kinds = (
        step & 0xFFFF, len(table), step >> 16 & 0xFFFF,
        step >> 32 & 0xFF, step >> 40 & 0xFF, step >> 48 & 1,
    )  # fmt: skip
    state = (score, prediction, exit_layer)
    options: dict[str, Any] = {"PDL": pdl, "launch_pdl": pdl} if pdl else {"PDL": False}
    options["enable_fp_fusion"] = True

    with _on_device_of(hidden):
        if pooler_weight is not None:
            pooled = torch.empty(count, width, dtype=torch.float32, device=hidden.device)
            blocks = {**_matrix(hidden, pooler_weight), "BLOCK_N": POOLER_BLOCK_N}
            grid = (triton.cdiv(width, POOLER_BLOCK_N), triton.cdiv(count, blocks["BLOCK_R"]))
            pooler_kernel[grid](
                hidden, row_stride, token_stride, positions, rows, exit_layer, pooler_weight,
                pooler_bias, pooled, count, width, **blocks, **options,
            )  # fmt: skip
            hidden, row_stride, token_stride, positions = pooled, width, 0, None

        classes = weight.shape[0]
        if classes <= ONE_PROGRAM_CLASSES:
            exit_step_kernel[(count,)](
                hidden, row_stride, token_stride, positions, rows, weight, bias, width, classes,
                table, *kinds, *state, logits, running,
                **one_program_blocks(classes, width), **options,
            )  # fmt: skip
            return

        blocks = _matrix(hidden, weight)
        tiles = triton.cdiv(classes, blocks["BLOCK_N"])
        argmaxima = torch.empty(count, tiles, dtype=torch.int32, device=hidden.device)
        sums = torch.empty(3, count, tiles, dtype=torch.float32, device=hidden.device)
        tiles_kernel[(tiles, triton.cdiv(count, blocks["BLOCK_R"]))](
            hidden, row_stride, token_stride, positions, rows, exit_layer, weight, bias,
            argmaxima, sums, logits, count, width, classes, tiles, **blocks, **options,
        )  # fmt: skip
        merge_kernel[(count,)](
            argmaxima, sums, rows, count, classes, tiles, table, *kinds, *state, running,
            **merge_blocks(tiles), **options,
        )  # fmt: skip


def one_program_blocks(classes: int, width: int) -> dict[str, int]:
    """Blocks of `exit_step_kernel`: as much of the width at once as the registers hold."""
    block_c = triton.next_power_of_2(classes)
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
    pooled is float32. (The interpreter's products of bfloat16 are wrong: there, float32 too.)"""
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


def _on_device_of(tensor: Tensor) -> AbstractContextManager[Any]:
    if tensor.device.type == "cpu" or tensor.device.index == torch.cuda.current_device():
        return nullcontext()
    return torch.cuda.device(tensor.device)
