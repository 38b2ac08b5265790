"""What a policy may know of a sample at one exit: signals of its logits, and a network's score."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

NEGATIVE_SLOPE = 0.01
"""Of the leaky ReLU in a NETWORK scorer."""


class Signals(NamedTuple):
    """What a policy may know of a sample at one exit."""

    prediction: Tensor  # (...) int64: argmax of the logits, ties go to the lowest index
    confidence: Tensor  # (...) float32: max of the softmax, in (0, 1]
    entropy: Tensor  # (...) float32: entropy over ln C, in [0, 1]; 0 when C = 1


def signals(
    logits: Tensor,  # (..., C)
) -> Signals:
    """Prediction, confidence and normalised entropy of logits, in float32 for any dtype.

    A NaN logit makes confidence and entropy NaN, so that every comparison with them is false.
    """
    logits = logits.float()
    probability = logits.softmax(-1)
    entropy = torch.special.entr(probability).sum(-1)  # entr(0) = 0
    classes = logits.shape[-1]
    if classes > 1:
        entropy = (entropy / math.log(classes)).clamp(max=1)  # rounding may exceed it
    return Signals(logits.argmax(-1), probability.amax(-1), entropy)


def network_features(
    logits: Tensor,  # (N, C) float32, as the signals saw them
    now: Signals,  # of (N,)
    votes: Tensor,  # (N, C) float32, this exit's vote among them
    earlier: Tensor,  # (N, exit - 1) float32: the scores of the exits before
) -> Tensor:
    """What a NETWORK scorer reads, [N, F] float32 (EENet, Eq. 5-7).

    F = C + 3 + (exit - 1) numbers: the C probabilities, the confidence, 1 minus the normalised
    entropy, the share of the class with most votes, and the earlier scores.
    """
    certain = torch.stack([now.confidence, 1 - now.entropy, votes.amax(-1) / votes.sum(-1)], dim=-1)
    return torch.cat([logits.softmax(-1), certain, earlier], dim=-1)


def network_score(
    scorer: Tensor,  # (H, F + 2) float32: of every unit F weights, its bias and its output weight
    features: Tensor,  # (N, F) float32, see `network_features`
) -> Tensor:
    """A NETWORK scorer's q, [N] float32 (EENet, Eq. 8 and 9).

    q = sigmoid(sum_h out_h * leaky_relu(w_h . f + b_h)); a unit of zero weights and bias 1 is the
    output's bias.
    """
    weights, bias, out = scorer[:, :-2], scorer[:, -2], scorer[:, -1]
    units = torch.nn.functional.leaky_relu(features @ weights.T + bias, NEGATIVE_SLOPE)
    return (units @ out).sigmoid()
