"""EENet: leave when a small trained network is sure enough that this exit is right."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eefast.ops import Gain, Keep, ScorerKind
from eefast.policies.base import Columns, Policy
from eefast.policies.values import Values, numbers


@dataclass(frozen=True, eq=False)
class EENet(Policy):
    """EENet ("Learning to Early Exit for Adaptive Inference"), Eq. 2 and Algorithm 2:

        S_k = q_k >= t_k,    q_k = sigmoid(W_k^g leaky_relu(W_k^sh [y_k, a_k, b_k]))    (Eq. 8, 9)

    y_k are the class probabilities, a_k the confidence, 1 minus the normalised entropy and the
    share of the class with most votes (Eq. 5 to 7), b_k the scores q_1 to q_(k-1). The exit's own
    prediction answers. That is what a NETWORK scorer computes, with D_h units that have no bias:
    see `network`. The scorer's second branch, r_k (Eq. 10), is a softmax over all exits; it serves
    the choice of thresholds and nothing reads it afterwards, so it is no part of the policy.

    Networks and thresholds come from `eefast.calibrate("eenet", trace, budget=...)`. The released
    code has another q: linear in these features without votes, hidden layer or sigmoid, so that it
    and the thresholds may exceed 1. This is the paper's.

    Args:
        thresholds: t_k, one number or one per exit; infinite where no sample leaves.
        networks: of each exit, [D_h, C + k + 4] float32, see `Policy.scorer_weights`. (): q_k is
            the confidence (the ablation of Figure 5 without the scorer).
    """

    name = "eenet"
    keep = Keep.NEVER

    thresholds: Values
    networks: tuple[Tensor, ...] = ()

    def __post_init__(self) -> None:
        thresholds = numbers(self.name, "thresholds", self.thresholds, -math.inf)
        object.__setattr__(self, "thresholds", thresholds)
        networks: Any = self.networks
        if isinstance(networks, Tensor) or not all(isinstance(w, Tensor) for w in networks):
            raise ValueError(
                f"{self.name}: networks must be a tensor for each exit, got "
                f"{type(networks).__name__}"
            )
        object.__setattr__(self, "networks", tuple(networks))

    @property
    def gain(self) -> Gain:
        return Gain.SCORE if self.networks else Gain.CONFIDENCE

    @property
    def scorer(self) -> ScorerKind:
        return ScorerKind.NETWORK if self.networks else ScorerKind.NONE

    def scorer_weights(self, exit: int) -> Tensor | None:
        return self.networks[exit - 1] if self.networks else None

    def columns(self, num_exits: int) -> Columns:
        if self.networks and len(self.networks) != num_exits:
            raise ValueError(
                f"{self.name}: there are {len(self.networks)} networks, the model has {num_exits} "
                "exits"
            )
        return Columns(thresholds=self.thresholds)


def network(
    shared: Tensor,  # (D_h, D): W^sh
    utility: Tensor,  # (D_h,): W^g
) -> Tensor:
    """The network of one exit, [D_h, D + 2], from the matrices of Eq. 8 and 9; D = C + k + 2."""
    return torch.cat([shared, torch.zeros_like(utility)[:, None], utility[:, None]], dim=1)
