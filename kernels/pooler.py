"""The pooler, tanh(W h + b), into a scratch buffer: the first of two launches.

One launch whose last program finishes the work would save 1 to 2 us. But Triton documents its
atomic counters and fences least, and its interpreter cannot show races. `impl="cuda"` does it that
way, where both can be tested.
"""

import triton
import triton.language as tl

from .pdl import launch_dependents, wait_for_producers
from .products import row_start, rows_of_block, rows_times_weights


@triton.jit
def tanh(x):
    """Within a few units in the last place; libdevice's is not available everywhere."""
    e = tl.exp(-2.0 * tl.abs(x))
    far = (1.0 - e) / (1.0 + e)
    far = tl.where(x < 0.0, -far, far)
    # Near 0 that difference cancels: Cephes' polynomial.
    square = x * x
    p = square * -5.70498872745e-3 + 2.06390887954e-2
    p = p * square - 5.37397155531e-2
    p = p * square + 1.33314422036e-1
    p = p * square - 3.33332819422e-1
    return tl.where(tl.abs(x) < 0.625, p * square * x + x, far)


@triton.jit(do_not_specialize=["count"])
def pooler_kernel(
    hidden,
    row_stride,
    offsets,
    rows,
    exit_layer,
    weight,  # [D, D]
    bias,  # [D] or None
    pooled,  # [R, D] float32, out
    count,  # R
    width,  # D
    BLOCK_R: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    IN_FLOAT32: tl.constexpr,
    PDL: tl.constexpr,
):
    """Program (n, r): outputs n * BLOCK_N ... of the rows r * BLOCK_R ... that are running."""
    wait_for_producers(PDL)
    launch_dependents(PDL)
    output = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    row, _, live = rows_of_block(tl.program_id(1), count, rows, exit_layer, BLOCK_R)
    if tl.max(live.to(tl.int32), 0) == 0:
        return

    starts = row_start(hidden, row, live, offsets, row_stride)
    x = rows_times_weights(starts, live, weight, bias, output, width, width, BLOCK_K, IN_FLOAT32)
    tl.store(
        pooled + row.to(tl.int64)[:, None] * width + output[None, :],
        tanh(x),
        mask=live[:, None] & (output < width)[None, :],
    )
