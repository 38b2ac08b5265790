"""The exit of a head with many classes, such as a decoder's vocabulary: tiles, then a merge.

Logits are written, nothing reads them: each tile of classes leaves its argmax, maximum and two
sums, and one program per row merges them, scores and decides. Two launches instead of a lock: which
program ends last decides nothing, so that results repeat to the bit.
"""

import triton
import triton.language as tl

from .accumulate import majority, store_ballots, sum_of_votes
from .pdl import launch_dependents, wait_for_producers
from .policy import (
    ACCUMULATE_VOTES,
    GAIN_CONFIDENCE,
    GAIN_CONFIDENCE_ABOVE,
    KEEP_CONFIDENCE_ABOVE,
    NO_INDEX,
    SCORER_ROW,
    decide,
    reduce_logits,
    signals,
)
from .products import row_start, rows_of_block, rows_times_weights, sample_of


@triton.jit(do_not_specialize=["count", "tiles"])
def tiles_kernel(
    hidden,
    row_stride,
    offsets,
    rows,
    exit_layer,
    weight,  # [C, D], or [C + 1, D] where a row of it scores
    bias,  # as many, or None
    argmaxima,  # [R, tiles] int32, out
    sums,  # [3, R, tiles] float32, out: maximum, rest, weighted rest
    scores,  # [R] float32, out, where a row of the weights scores; else None
    logits,  # [N, C], or None where votes take their place
    count,  # R
    width,  # D
    classes,  # C
    tiles,
    BLOCK_R: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    IN_FLOAT32: tl.constexpr,
    PDL: tl.constexpr,
):
    """Program (t, r): outputs t * BLOCK_N ... of the rows r * BLOCK_R ... that are running."""
    wait_for_producers(PDL)
    launch_dependents(PDL)
    tile = tl.program_id(0)
    output = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    row, sample, live = rows_of_block(tl.program_id(1), count, rows, exit_layer, BLOCK_R)
    if tl.max(live.to(tl.int32), 0) == 0:
        return

    outputs = classes
    if scores is not None:
        outputs += 1
    starts = row_start(hidden, row, live, offsets, row_stride)
    z = rows_times_weights(starts, live, weight, bias, output, outputs, width, BLOCK_K, IN_FLOAT32)
    if scores is not None:
        tl.store(
            tl.broadcast_to(scores + row[:, None], z.shape),
            tl.sigmoid(z),
            mask=live[:, None] & (output == classes)[None, :],
        )
    if logits is not None:
        # Of all running samples: which of them exit is not known yet. A later exit overwrites them.
        tl.store(
            logits + sample.to(tl.int64)[:, None] * classes + output[None, :],
            z,
            mask=live[:, None] & (output < classes)[None, :],
        )

    index = tl.broadcast_to(output[None, :], z.shape)
    argmax, maximum, rest, weighted_rest = reduce_logits(z, index, index < classes, 1)
    at, plane = row.to(tl.int64) * tiles + tile, tl.cast(count, tl.int64) * tiles
    tl.store(argmaxima + at, argmax, mask=live)
    tl.store(sums + at, maximum, mask=live)
    tl.store(sums + plane + at, rest, mask=live)
    tl.store(sums + 2 * plane + at, weighted_rest, mask=live)


@triton.jit(
    do_not_specialize=[
        "count", "classes", "tiles", "exit", "last_exit", "layer", "keep", "gain", "strict",
        "memories",
    ]
)  # fmt: skip
def merge_kernel(
    argmaxima,
    sums,
    scores,
    rows,
    count,
    classes,
    tiles,
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
    logits,
    running,
    votes,  # [N, C] or None
    memory,  # [N, M] or None
    memories,  # M
    ACCUMULATE: tl.constexpr,
    SCORER: tl.constexpr,
    BLOCK_T: tl.constexpr,
    PDL: tl.constexpr,
):
    """Program r: merges the tiles of row r, if its sample is running; scores and decides."""
    wait_for_producers(PDL)
    row = tl.program_id(0)
    sample = sample_of(row, True, rows)
    if tl.load(exit_layer + sample) != 0:
        return

    tile = tl.arange(0, BLOCK_T)
    valid = tile < tiles
    first, plane = row.to(tl.int64) * tiles, tl.cast(count, tl.int64) * tiles
    at = first + tile
    maxima = tl.load(sums + at, mask=valid, other=float("-inf"))
    rests = tl.load(sums + plane + at, mask=valid, other=0.0)
    weighted_rests = tl.load(sums + 2 * plane + at, mask=valid, other=0.0)

    first_nan = tl.min(tl.where(maxima != maxima, tile, NO_INDEX), 0)
    has_nan = first_nan != NO_INDEX
    maximum = tl.max(tl.where(maxima == maxima, maxima, float("-inf")), 0)
    winner = tl.min(tl.where(maxima == maximum, tile, NO_INDEX), 0)
    winner = tl.where(has_nan, first_nan, winner)

    # The sums omit the argmax itself in the winner's tile only.
    x = maxima - maximum
    scale = tl.exp(x)
    counted = rests + tl.where(tile == winner, 0.0, 1.0)
    rest = tl.sum(tl.where(scale > 0.0, scale * counted, 0.0), 0)
    weighted_rest = tl.sum(tl.where(scale > 0.0, scale * (weighted_rests + x * counted), 0.0), 0)
    argmax = tl.load(argmaxima + first + winner)
    maximum = tl.where(has_nan, float("nan"), maximum)

    # Score.
    confidence, entropy = signals(maximum, rest, weighted_rest, classes)
    previous_score, previous = tl.load(score + sample), tl.load(prediction + sample)
    predicted, most, q = argmax, 0.0, 0.0
    if SCORER == SCORER_ROW:
        q = tl.load(scores + row)
    if ACCUMULATE == ACCUMULATE_VOTES:
        cast = votes + sample.to(tl.int64) * classes
        predicted, most, ours = majority(cast, argmax, previous)
        # The one pass over the classes, for those who ask.
        if (
            (keep == KEEP_CONFIDENCE_ABOVE)
            | (gain == GAIN_CONFIDENCE)
            | (gain == GAIN_CONFIDENCE_ABOVE)
        ):
            confidence = most / (sum_of_votes(cast, classes) + 1.0)

    # Decide.
    leaves = decide(
        sample, predicted, True, confidence, entropy, most, q, previous_score, previous, table,
        exit, last_exit, layer, keep, gain, strict, score, prediction, exit_layer, running,
        ACCUMULATE, SCORER,
    )  # fmt: skip
    if memory is not None:
        tl.store(memory + sample.to(tl.int64) * memories + exit - 1, q)
    if ACCUMULATE == ACCUMULATE_VOTES:
        tl.store(cast + argmax, ours)
        if leaves:
            of_sample = logits + sample.to(tl.int64) * classes
            store_ballots(cast, argmax, ours, predicted, classes, of_sample)
