"""What a policy gathers over the exits of one sample: votes, an ensemble's logits, or an answer."""

import triton
import triton.language as tl

from .policy import (
    ACCUMULATE_MOST_CONFIDENT,
    ACCUMULATE_STREAK_MEAN,
    reduce_logits,
    signals,
)

BLOCK_V = tl.constexpr(1024)  # classes at a time, where they are many


@triton.jit
def ensemble(z, summed, table, exit):
    """The sum of tau_j z_j over the exits so far, of which `summed` lacks this one; and that over
    the sum of all tau_j, the logits of the exits' weighted geometric mean."""
    tau = tl.load(table + 3 * exit - 1)
    total = 0.0
    for i in range(0, exit):
        total += tl.load(table + 3 * i + 2)
    summed = tl.where(tau == 0.0, summed, summed + tau * z)  # z may be infinite
    return summed, tl.where(total == 0.0, z, summed / tl.where(total == 0.0, 1.0, total))


@triton.jit
def majority(cast, argmax, previous):
    """The leading class after one more vote for `argmax` than were `cast` ([C]), its votes, and the
    votes of `argmax`.

    `previous` has led so far, or is -1. Only `argmax` can have come up to it, and of classes that
    tie the last to have got a vote leads.
    """
    ours = tl.load(cast + argmax) + 1.0
    theirs = tl.load(cast + previous, mask=previous >= 0, other=0.0)
    leads = ours >= theirs
    return tl.where(leads, argmax, previous), tl.where(leads, ours, theirs), ours


@triton.jit
def sum_of_votes(cast, classes):
    """How many votes were `cast` ([C]): the exits met so far."""
    total = 0.0
    for first in range(0, classes, BLOCK_V):
        output = first + tl.arange(0, BLOCK_V)
        total += tl.sum(tl.load(cast + output, mask=output < classes, other=0.0), 0)
    return total


@triton.jit
def store_ballots(cast, argmax, ours, leader, classes, logits):
    """Votes as logits ([C]) of a sample that leaves: half a vote more makes `leader` the argmax.

    The vote for `argmax`, which now has `ours`, may or may not be among those `cast` yet.
    """
    for first in range(0, classes, BLOCK_V):
        output = first + tl.arange(0, BLOCK_V)
        votes = tl.load(cast + output, mask=output < classes, other=0.0)
        votes = tl.where(output == argmax, ours, votes)
        tl.store(logits + output, as_logits(votes, output, leader), mask=output < classes)


@triton.jit
def as_logits(votes, output, leader):
    """Half a vote more makes `leader` the argmax."""
    return votes + tl.where(output == leader, 0.5, 0.0)


@triton.jit
def gather(
    gathered,
    z,
    output,
    valid,
    classes,
    maximum,
    confidence,
    first,  # whether the sample meets no exit but this
    kept,  # whether the streak goes on
    ACCUMULATE: tl.constexpr,
):
    """The sum of probabilities so far, or of the streak, with this exit's; or the logits of the
    most confident exit, which this one's replace where they are more confident.

    A NaN is never the more confident, and anything is more confident than it.
    """
    if ACCUMULATE == ACCUMULATE_MOST_CONFIDENT:
        _, largest, rest, weighted_rest = reduce_logits(gathered, output, valid, 0)
        most, _ = signals(largest, rest, weighted_rest, classes)
        better = first | (confidence > most)
        better |= (most != most) & (confidence == confidence)
        gathered = tl.where(better, z, gathered)
    else:
        gathered += tl.where(valid, tl.exp(z - maximum) * confidence, 0.0)
    if ACCUMULATE == ACCUMULATE_STREAK_MEAN:
        gathered = tl.where(kept, gathered, 0.0)
    return gathered


@triton.jit
def answer(gathered, z, output, valid, last, ACCUMULATE: tl.constexpr):
    """The logits of a sample that exits, and their argmax."""
    if ACCUMULATE == ACCUMULATE_MOST_CONFIDENT:
        z = tl.where(last, gathered, z)
    else:
        total = tl.sum(gathered, 0)
        mean = tl.where(valid, gathered, 1.0) / tl.where(total == 0.0, 1.0, total)
        z = tl.where(total == 0.0, z, tl.log(mean))
    argmax, _, _, _ = reduce_logits(z, output, valid, 0)
    return z, argmax
