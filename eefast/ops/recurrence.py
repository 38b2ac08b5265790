"""The recurrence that every exit policy is a row of: kinds, signals, one step.

At exit i a sample has its signals (prediction, confidence, normalised entropy, agreement with the
exit before). The policy keeps one running score,

    S_0 = 0,    S_i = keep_i * S_(i-1) + w_i * gain_i,

and the sample leaves at the first exit whose score reaches the threshold alpha_i; the last exit
always answers. This file is the plain PyTorch form of that, shared by the reference exit step and
by the simulation of policies on traces.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor


class Keep(IntEnum):
    """What becomes of the score of the exits before. `tau` is the third column of the table."""

    NEVER = 0  # 0: each exit is judged alone
    AGREE = 1  # 1 if the prediction is that of the exit before, else 0
    ENTROPY_BELOW = 2  # 1 if the normalised entropy is below tau, else 0
    CONFIDENCE_ABOVE = 3  # 1 if the confidence is above tau, else 0
    ALWAYS = 4  # 1


class Gain(IntEnum):
    """What an exit adds to the score, times the exit's weight."""

    ONE = 0  # 1
    CONFIDENCE = 1  # the highest class probability
    NEGATIVE_ENTROPY = 2  # minus the normalised entropy
    AGREE = 3  # 1 if the prediction is that of the exit before, else 0
    ENTROPY_BELOW = 4  # 1 if the normalised entropy is below tau, else 0
    CONFIDENCE_ABOVE = 5  # 1 if the confidence is above tau, else 0


NO_PREDICTION = -1
"""The prediction of a sample that has met no exit yet: nothing agrees with it."""


class Signals(NamedTuple):
    """What a policy may know of a sample at one exit."""

    prediction: Tensor  # (...) int64: argmax of the logits, ties go to the lowest index
    confidence: Tensor  # (...) float32: max of the softmax, in (0, 1]
    entropy: Tensor  # (...) float32: entropy over ln C, in [0, 1]; 0 when C = 1


def signals(
    logits: Tensor,  # (..., C)
) -> Signals:
    """Prediction, confidence and normalised entropy of logits, in float32 whatever came in.

    A NaN logit makes confidence and entropy NaN, so that every comparison with them is false.
    """
    logits = logits.float()
    probability = logits.softmax(-1)
    entropy = torch.special.entr(probability).sum(-1)  # entr(0) = 0
    classes = logits.shape[-1]
    if classes > 1:
        entropy = (entropy / math.log(classes)).clamp(max=1)  # rounding may step over it
    return Signals(logits.argmax(-1), probability.amax(-1), entropy)


def advance(
    score: Tensor,  # (N,) float32, the score after the exit before
    previous: Tensor,  # (N,) the prediction at the exit before
    now: Signals,  # of (N,)
    *,
    keep: int,
    gain: int,
    weight: Tensor | float,
    tau: Tensor | float,
) -> Tensor:
    """The score after this exit, S_i = keep_i * S_(i-1) + w_i * gain_i, [N] float32."""
    agree = now.prediction == previous
    match Keep(keep):
        case Keep.NEVER:
            kept = torch.zeros_like(agree)
        case Keep.AGREE:
            kept = agree
        case Keep.ENTROPY_BELOW:
            kept = now.entropy < tau
        case Keep.CONFIDENCE_ABOVE:
            kept = now.confidence > tau
        case Keep.ALWAYS:
            kept = torch.ones_like(agree)
    match Gain(gain):
        case Gain.ONE:
            gained = torch.ones_like(score)
        case Gain.CONFIDENCE:
            gained = now.confidence
        case Gain.NEGATIVE_ENTROPY:
            gained = -now.entropy
        case Gain.AGREE:
            gained = agree.float()
        case Gain.ENTROPY_BELOW:
            gained = (now.entropy < tau).float()
        case Gain.CONFIDENCE_ABOVE:
            gained = (now.confidence > tau).float()
    # A score that is not kept is dropped, not multiplied by 0: NaN must not outlive its exit.
    return torch.where(kept, score, 0.0) + weight * gained


def reached(score: Tensor, threshold: Tensor | float, *, strict: bool) -> Tensor:
    """Where the score says "leave": S > alpha if strict, S >= alpha otherwise."""
    return score > threshold if strict else score >= threshold
