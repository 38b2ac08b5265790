"""Signals, recurrence and decision of one sample at one exit, in scalars.

The maths of csrc/policy.h. No number of a policy is compiled in: weight, threshold and tau come
from the device table at every launch, and the kinds of keep and gain are arguments. Only what a
policy accumulates and how it scores are compiled in, so that whoever does neither pays nothing.
"""

import triton
import triton.language as tl

# The numbers of eefast.ops.Keep, Gain, Accumulate and ScorerKind, part of the op's contract.
KEEP_AGREE = tl.constexpr(1)
KEEP_ENTROPY_BELOW = tl.constexpr(2)
KEEP_CONFIDENCE_ABOVE = tl.constexpr(3)
KEEP_ALWAYS = tl.constexpr(4)
KEEP_NOT_SCORE = tl.constexpr(5)
GAIN_ONE = tl.constexpr(0)
GAIN_CONFIDENCE = tl.constexpr(1)
GAIN_NEGATIVE_ENTROPY = tl.constexpr(2)
GAIN_AGREE = tl.constexpr(3)
GAIN_ENTROPY_BELOW = tl.constexpr(4)
GAIN_CONFIDENCE_ABOVE = tl.constexpr(5)
GAIN_SCORE = tl.constexpr(6)
GAIN_VOTES = tl.constexpr(7)
ACCUMULATE_VOTES = tl.constexpr(1)
ACCUMULATE_LOG_PROBABILITIES = tl.constexpr(2)
SCORER_NONE = tl.constexpr(0)
SCORER_ROW = tl.constexpr(1)
SCORER_NETWORK = tl.constexpr(2)

NO_INDEX = tl.constexpr(2**31 - 1)


@triton.jit
def log1p(x):
    """ln(1 + x) for x >= 0, with the digits that 1 + x would lose."""
    u = 1.0 + x
    return tl.where(u == 1.0, x, tl.log(u) * (x / (u - 1.0)))


@triton.jit
def reduce_logits(z, index, valid, axis: tl.constexpr):
    """Argmax, maximum and the sums over all classes but the argmax, along `axis` of `z`.

    `index` are the classes of `z`, `valid` where there are any. Ties go to the lowest class. With a
    NaN among the logits, the argmax is the first of them and the maximum is NaN.
    """
    nan = (z != z) & valid
    z = tl.where(valid & (z == z), z, float("-inf"))
    maximum = tl.max(z, axis, keep_dims=True)
    argmax = tl.min(tl.where(valid & (z == maximum), index, NO_INDEX), axis, keep_dims=True)
    first_nan = tl.min(tl.where(nan, index, NO_INDEX), axis, keep_dims=True)
    x = z - maximum
    e = tl.where(valid & (index != argmax), tl.exp(x), 0.0)
    rest = tl.sum(e, axis)
    weighted_rest = tl.sum(tl.where(e > 0.0, x * e, 0.0), axis)  # x may be -inf where e is 0
    has_nan = first_nan != NO_INDEX
    argmax = tl.where(has_nan, first_nan, argmax)
    maximum = tl.where(has_nan, float("nan"), maximum)
    return tl.sum(argmax, axis), tl.sum(maximum, axis), rest, weighted_rest


@triton.jit
def signals(maximum, rest, weighted_rest, classes):
    """Confidence and normalised entropy of one sample."""
    rest += maximum - maximum  # NaN unless the logits are finite
    total = 1.0 + rest
    # One class has no entropy to normalise: 0 / 1.
    largest = tl.where(classes > 1, tl.log(classes.to(tl.float32)), 1.0)
    entropy = (log1p(rest) - weighted_rest / total) / largest
    return 1.0 / total, tl.where(entropy > 1.0, 1.0, entropy)


@triton.jit
def decide(
    sample,
    predicted,
    agrees,  # where the prediction is that of the exit before
    confidence,
    entropy,
    most_votes,  # for GAIN_VOTES
    q,  # for KEEP_NOT_SCORE and GAIN_SCORE
    previous_score,
    previous,  # the prediction at the exit before
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
    running,
    ACCUMULATE: tl.constexpr,
    SCORER: tl.constexpr,
):
    """Takes one running sample through the recurrence; returns whether it exits.

    Each warp has loaded for itself what only one of them stores: nothing that any program of this
    launch stores may be loaded after this has begun.
    """
    row = table + 3 * (exit - 1)
    weight, threshold, tau = tl.load(row), tl.load(row + 1), tl.load(row + 2)
    tl.debug_barrier()
    agrees = (predicted == previous) & agrees
    below, above = entropy < tau, confidence > tau

    kept = (keep == KEEP_AGREE) & agrees
    kept |= (keep == KEEP_ENTROPY_BELOW) & below
    kept |= (keep == KEEP_CONFIDENCE_ABOVE) & above
    kept |= keep == KEEP_ALWAYS

    indicator = (gain == GAIN_AGREE) & agrees
    indicator |= (gain == GAIN_ENTROPY_BELOW) & below
    indicator |= (gain == GAIN_CONFIDENCE_ABOVE) & above
    gained = tl.where(indicator | (gain == GAIN_ONE), weight, 0.0)
    gained = tl.where(gain == GAIN_CONFIDENCE, weight * confidence, gained)
    gained = tl.where(gain == GAIN_NEGATIVE_ENTROPY, weight * -entropy, gained)

    # A score that is not kept is dropped, not multiplied by 0: a NaN must not survive its exit.
    before = tl.where(kept, previous_score, 0.0)
    if ACCUMULATE == ACCUMULATE_VOTES:
        gained = tl.where(gain == GAIN_VOTES, weight * most_votes, gained)
    if SCORER != SCORER_NONE:
        gained = tl.where(gain == GAIN_SCORE, weight * q, gained)
        before = tl.where(keep == KEEP_NOT_SCORE, (1.0 - q) * previous_score, before)
    now = before + gained
    exits_here = (now > threshold) | ((strict == 0) & (now == threshold)) | (exit == last_exit)

    tl.store(score + sample, now)
    tl.store(prediction + sample, predicted)
    tl.store(exit_layer + sample, layer, mask=exits_here)
    # Several programs may write it, all with the same value.
    tl.store(running + (exit - 1), True, mask=exits_here == 0)
    return exits_here
