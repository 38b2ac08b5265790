"""The exit of a head with few classes: one program per row does everything."""

import triton
import triton.language as tl

from .accumulate import answer, as_logits, ensemble, gather, majority
from .pdl import wait_for_producers
from .policy import (
    ACCUMULATE_LOG_PROBABILITIES,
    ACCUMULATE_MEAN,
    ACCUMULATE_TEMPERATURE,
    ACCUMULATE_VOTES,
    SCORER_NETWORK,
    SCORER_ROW,
    decide,
    keeps,
    reduce_logits,
    signals,
)
from .products import row_start, row_times_weights, sample_of
from .scorer import network_score


@triton.jit(
    do_not_specialize=[
        "classes", "units", "exit", "last_exit", "layer", "keep", "gain", "strict", "memories",
    ]
)  # fmt: skip
def exit_step_kernel(
    hidden,
    row_stride,
    offsets,
    rows,
    weight,  # [C, D], or [C + 1, D] where a row of it scores
    bias,  # as many, or None
    cascade,  # [C, C] or None
    width,  # D
    classes,  # C
    scorer,  # [H, F + 2] or None
    units,  # H
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
    logits,  # [N, C]
    running,
    votes,  # [N, C] or None
    memory,  # [N, M] or None
    memories,  # M
    ACCUMULATE: tl.constexpr,
    SCORER: tl.constexpr,
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

    # Head.
    output = tl.arange(0, BLOCK_C)
    valid = output < classes
    outputs = classes
    if SCORER == SCORER_ROW:
        outputs += 1
    start = row_start(hidden, row, True, offsets, row_stride)
    z = row_times_weights(start, weight, bias, output, outputs, width, BLOCK_K)
    q = 0.0
    if SCORER == SCORER_ROW:
        q = tl.sigmoid(tl.sum(tl.where(output == classes, z, 0.0), 0))
    of_classes = sample.to(tl.int64) * classes + output
    if cascade is not None:
        left = logits + sample.to(tl.int64) * classes
        z += row_times_weights(left, cascade, None, output, classes, classes, BLOCK_K)
    own = z
    if ACCUMULATE == ACCUMULATE_LOG_PROBABILITIES:
        gathered = tl.load(votes + of_classes, mask=valid, other=0.0)
        gathered, z = ensemble(z, gathered, table, exit)
    if ACCUMULATE == ACCUMULATE_TEMPERATURE:
        z *= tl.load(table + 3 * exit - 1)

    # Score.
    argmax, maximum, rest, weighted_rest = reduce_logits(z, output, valid, 0)
    confidence, entropy = signals(maximum, rest, weighted_rest, classes)
    previous_score, previous = tl.load(score + sample), tl.load(prediction + sample)
    predicted, answered, most = argmax, argmax, 0.0
    agrees = True
    if BLOCK_C <= 2:  # with one class its output is close to that of the exit before
        before = tl.load(logits + sample, mask=classes == 1, other=0.0)
        close = tl.abs(maximum - before) < tl.load(table + 3 * exit - 1)
        agrees = (classes != 1) | close
    if SCORER == SCORER_NETWORK:
        probability = tl.where(valid, tl.exp(z - maximum) * confidence, 0.0)
    if ACCUMULATE == ACCUMULATE_VOTES or SCORER == SCORER_NETWORK:
        gathered = tl.load(votes + of_classes, mask=valid, other=0.0)
        if ACCUMULATE == ACCUMULATE_VOTES:
            cast = votes + sample.to(tl.int64) * classes
            predicted, most, _ = majority(cast, argmax, previous)
        gathered += tl.where(output == argmax, 1.0, 0.0)
        met = tl.sum(gathered, 0)
        if ACCUMULATE == ACCUMULATE_VOTES:
            confidence = most / met
            z = as_logits(gathered, output, predicted)
    if SCORER == SCORER_NETWORK:
        share = tl.max(gathered, 0) / tl.sum(gathered, 0)
        scores = memory + sample.to(tl.int64) * memories
        q = network_score(
            scorer, units, classes, exit, probability, output, valid, confidence, entropy, share,
            scores,
        )  # fmt: skip
    if ACCUMULATE >= ACCUMULATE_MEAN:
        tau = tl.load(table + 3 * exit - 1)
        kept = keeps(keep, predicted == previous, confidence, entropy, q, tau, SCORER)
        gathered = tl.load(votes + of_classes, mask=valid, other=0.0)
        gathered = gather(
            gathered, z, output, valid, classes, maximum, confidence, previous < 0, kept, ACCUMULATE
        )
        z, answered = answer(gathered, z, output, valid, exit == last_exit, ACCUMULATE)

    # Decide.
    exits_here = decide(
        sample, predicted, answered, agrees, confidence, entropy, most, q, previous_score, previous,
        table, exit, last_exit, layer, keep, gain, strict, score, prediction, exit_layer, running,
        ACCUMULATE, SCORER,
    )  # fmt: skip
    if votes is not None:
        tl.store(votes + of_classes, gathered, mask=valid)
    if memory is not None:
        tl.store(memory + sample.to(tl.int64) * memories + exit - 1, q)
    # The next exit's head reads what this one gave, or is compared with it.
    if exits_here | (cascade is not None) | (classes == 1):
        tl.store(logits + of_classes, tl.where(exits_here, z, own), mask=valid)
