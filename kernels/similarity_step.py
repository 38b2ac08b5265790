"""`eefast::similarity_step`: one program per row compares its vector with the layer's before."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .device import on_device_of
from .products import row_start, sample_of


@triton.jit
def inverse_norm(x):
    """1 over the norm of a vector. As in torch's cosine_similarity, a norm is 1e-8 at least."""
    norm = tl.sqrt(tl.sum(x * x, 0))
    return 1.0 / tl.where(norm < 1e-8, 1e-8, norm)  # NaN stays NaN


@triton.jit(do_not_specialize=["exit", "last_exit", "layer", "strict"])
def similarity_step_kernel(
    hidden,
    row_stride,
    offsets,
    rows,
    width,  # D
    table,
    exit,
    last_exit,
    layer,
    strict,
    previous,  # [N, D]
    score,
    exit_layer,
    running,
    BLOCK_K: tl.constexpr,  # at least the width
):
    """Program r: row r, if its sample is running."""
    row = tl.program_id(0)
    sample = sample_of(row, True, rows)
    if tl.load(exit_layer + sample) != 0:
        return

    inner = tl.arange(0, BLOCK_K)
    valid = inner < width
    start = row_start(hidden, row, True, offsets, row_stride)
    before = previous + sample.to(tl.int64) * width
    x = tl.load(start + inner, mask=valid, other=0.0).to(tl.float32)
    y = tl.load(before + inner, mask=valid, other=0.0)
    # Divided before they meet: the product of two large vectors overflows where neither norm does.
    similarity = tl.sum(x * inverse_norm(x) * (y * inverse_norm(y)), 0)

    row_of_table = table + 3 * (exit - 1)
    weight, threshold = tl.load(row_of_table), tl.load(row_of_table + 1)
    # Each warp has loaded for itself what others store.
    tl.debug_barrier()
    now = weight * similarity
    exits_here = (now > threshold) | ((strict == 0) & (now == threshold)) | (exit == last_exit)
    tl.store(before + inner, x, mask=valid)
    tl.store(score + sample, now)
    tl.store(exit_layer + sample, layer, mask=exits_here)
    # Several programs may write it, all with the same value.
    tl.store(running + (exit - 1), True, mask=exits_here == 0)


def launch_similarity_step(
    hidden: Tensor,
    offsets: Tensor | None,
    table: Tensor,
    rows: Tensor | None,
    step: int,
    previous: Tensor,
    score: Tensor,
    exit_layer: Tensor,
    running: Tensor,
) -> None:
    """The op `eefast::similarity_step.triton`: one launch.

    `offsets` and `rows` are taken at their word: they lie on the device.
    """
    # The bits of eefast.ops.Step.
    exit, layer, strict = step & 0xFFFF, step >> 16 & 0xFFFF, step >> 48 & 1
    count, width = (hidden if offsets is None else offsets).shape[0], hidden.shape[-1]
    if count == 0:
        return
    block_k = triton.next_power_of_2(width)
    with on_device_of(hidden):
        similarity_step_kernel[(count,)](
            hidden, hidden.stride(0), offsets, rows, width, table, exit, table.shape[0], layer,
            strict, previous, score, exit_layer, running,
            BLOCK_K=block_k, num_warps=16 if block_k > 4096 else 4, enable_fp_fusion=True,
        )  # fmt: skip
