"""The exit of a head with few classes: one program per row does everything."""

import triton
import triton.language as tl

from .pdl import wait_for_producers
from .policy import reduce_logits, update_state
from .products import row_start, sample_of


@triton.jit(do_not_specialize=["classes", "exit", "last_exit", "layer", "keep", "gain", "strict"])
def exit_step_kernel(
    hidden,
    row_stride,
    token_stride,
    positions,
    rows,
    weight,  # [C, D]
    bias,  # [C] or None
    width,  # D
    classes,  # C
    table,
    exit,
    last_exit,
    layer,
    keep,
    gain,
    strict,
    score,
    prediction,
    exit_layer,
    logits,  # [N, C] or None
    running,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PDL: tl.constexpr,
):
    """Program r: row r, if its sample is running."""
    wait_for_producers(PDL)
    row = tl.program_id(0)
    sample = sample_of(row, True, rows)
    if tl.load(exit_layer + sample) != 0:
        return

    start = row_start(hidden, row, sample, True, positions, row_stride, token_stride)
    output = tl.arange(0, BLOCK_C)
    valid = output < classes
    products = tl.zeros((BLOCK_C, BLOCK_K), tl.float32)
    for k in range(0, width, BLOCK_K):
        inner = k + tl.arange(0, BLOCK_K)
        x = tl.load(start + inner, mask=inner < width, other=0.0).to(tl.float32)
        w = tl.load(
            weight + output[:, None] * width + inner[None, :],
            mask=valid[:, None] & (inner < width)[None, :],
            other=0.0,
        ).to(tl.float32)
        products += w * x[None, :]
    z = tl.sum(products, 1)
    if bias is not None:
        z += tl.load(bias + output, mask=valid, other=0.0).to(tl.float32)

    argmax, maximum, rest, weighted_rest = reduce_logits(z, output, valid, 0)
    leaves = update_state(
        sample, argmax, maximum, rest, weighted_rest, classes, table, exit, last_exit, layer,
        keep, gain, strict, score, prediction, exit_layer, running,
    )  # fmt: skip
    if logits is not None:
        if leaves:
            tl.store(logits + sample.to(tl.int64) * classes + output, z, mask=valid)
