"""Rows of hidden states times a weight matrix, over tiles."""

import triton
import triton.language as tl


@triton.jit
def sample_of(row, valid, rows):
    """The sample of a row: `rows[row]`, or the row's own number."""
    if rows is None:
        sample = row
    else:
        sample = tl.load(rows + row, mask=valid, other=0)
    return sample


@triton.jit
def rows_of_block(block, count, rows, exit_layer, BLOCK_R: tl.constexpr):
    """The rows of a block, their samples, and which of them are running."""
    row = block * BLOCK_R + tl.arange(0, BLOCK_R)
    valid = row < count
    sample = sample_of(row, valid, rows)
    live = valid & (tl.load(exit_layer + sample, mask=valid, other=1) == 0)
    return row, sample, live


@triton.jit
def row_start(hidden, row, valid, offsets, row_stride):
    """Where the vector of a row begins: vector `offsets[row]` of `hidden`, or the row's own."""
    if offsets is None:
        at = row
    else:
        at = tl.load(offsets + row, mask=valid, other=0)
    return hidden + at.to(tl.int64) * row_stride


@triton.jit
def row_times_weights(
    start,  # pointer to the row
    weight,
    bias,  # or None
    output,  # [BLOCK_C] rows of `weight`
    outputs,
    width,
    BLOCK_K: tl.constexpr,
):
    """weight[output] @ start + bias[output] in float32, [BLOCK_C]; 0 beyond the last output."""
    valid = output < outputs
    products = tl.zeros((output.shape[0], BLOCK_K), tl.float32)
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
    return z


@triton.jit
def rows_times_weights(
    starts,  # [BLOCK_R] pointers to the rows
    live,  # [BLOCK_R] which of them count
    weight,
    bias,  # or None
    output,  # [BLOCK_N] rows of `weight`
    outputs,
    width,
    BLOCK_K: tl.constexpr,
    IN_FLOAT32: tl.constexpr,
):
    """starts @ weight[output].T + bias[output] in float32, [BLOCK_R, BLOCK_N].

    Always a matrix product, also for one row, so that a row's result does not depend on its batch.
    In 16 bits the tensor cores compute it, and reading the weights takes longer than the idle lanes
    cost. Exact float32 (not TF32) has no tensor cores: 16 rows mean 8 operations per byte of
    weights, which an A100 computes barely as fast as it reads them.
    """
    product = tl.zeros((starts.shape[0], output.shape[0]), tl.float32)
    weight_starts = weight + output.to(tl.int64) * width
    for k in range(0, width, BLOCK_K):
        inner = k + tl.arange(0, BLOCK_K)
        x = tl.load(
            starts[:, None] + inner[None, :],
            mask=live[:, None] & (inner < width)[None, :],
            other=0.0,
        )
        w = tl.load(
            weight_starts[None, :] + inner[:, None],
            mask=(output < outputs)[None, :] & (inner < width)[:, None],
            other=0.0,
        )
        if IN_FLOAT32:
            x, w = x.to(tl.float32), w.to(tl.float32)
        product = tl.dot(x, w, product, input_precision="ieee")
    if bias is not None:
        product += tl.load(bias + output, mask=output < outputs, other=0.0).to(tl.float32)[None, :]
    return product
