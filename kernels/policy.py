"""Signals, recurrence and decision of one sample at one exit, in scalars.

The maths of csrc/policy.h. No number of a policy is compiled in: weight, threshold and tau come
from the device table at every launch, and the kinds of keep and gain are arguments.
"""

import triton
import triton.language as tl

# The numbers of eefast.ops.Keep and eefast.ops.Gain, part of the op's contract.
KEEP_AGREE = tl.constexpr(1)
KEEP_ENTROPY_BELOW = tl.constexpr(2)
KEEP_CONFIDENCE_ABOVE = tl.constexpr(3)
KEEP_ALWAYS = tl.constexpr(4)
GAIN_ONE = tl.constexpr(0)
GAIN_CONFIDENCE = tl.constexpr(1)
GAIN_NEGATIVE_ENTROPY = tl.constexpr(2)
GAIN_AGREE = tl.constexpr(3)
GAIN_ENTROPY_BELOW = tl.constexpr(4)
GAIN_CONFIDENCE_ABOVE = tl.constexpr(5)

NO_INDEX = tl.constexpr(2**31 - 1)


@triton.jit
def log1p(x):
    """ln(1 + x) for x >= 0, without the digits that 1 + x loses."""
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
def update_state(
    sample,
    argmax,
    maximum,
    rest,
    weighted_rest,
    classes,
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
):
    """Takes one running sample through the recurrence; returns whether it leaves."""
    row = table + 3 * (exit - 1)
    weight, threshold, tau = tl.load(row), tl.load(row + 1), tl.load(row + 2)

    rest += maximum - maximum  # NaN unless the logits are finite
    total = 1.0 + rest
    confidence = 1.0 / total
    # One class has no entropy to normalise: 0 / 1.
    largest = tl.where(classes > 1, tl.log(classes.to(tl.float32)), 1.0)
    entropy = (log1p(rest) - weighted_rest / total) / largest
    entropy = tl.where(entropy > 1.0, 1.0, entropy)
    previous_score, previous_prediction = tl.load(score + sample), tl.load(prediction + sample)
    # Each warp loads for itself, one of them stores: all must have loaded by then.
    tl.debug_barrier()
    agrees = argmax == previous_prediction
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

    # A score that is not kept is dropped, not multiplied by 0: NaN must not outlive its exit.
    now = tl.where(kept, previous_score, 0.0) + gained
    leaves = (now > threshold) | ((strict == 0) & (now == threshold)) | (exit == last_exit)

    tl.store(score + sample, now)
    tl.store(prediction + sample, argmax)
    tl.store(exit_layer + sample, layer, mask=leaves)
    # Several programs may write it; all of them write the same.
    tl.store(running + (exit - 1), True, mask=leaves == 0)
    return leaves
