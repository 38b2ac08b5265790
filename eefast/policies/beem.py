"""BEEM: exits are experts whose weighted confidences add up while they agree."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eefast.ops import Gain, Keep
from eefast.policies.base import Columns, Policy
from eefast.policies.values import Values, number, numbers, whole

if TYPE_CHECKING:
    from eefast.traces import ExitTrace

SEARCH_SPACE = (0.3, 0.6, 0.9, 1.2, 1.5)
"""The paper's thresholds for the classical method, one for all exits."""


@dataclass(frozen=True)
class BEEM(Policy):
    """BEEM (Bajpai and Hanawal, ICLR 2025), Eq. 2:

        S_i = S_(i-1) + w_i C_i    if the prediction is that of exit i - 1
        S_i = w_i C_i              otherwise;            exit when S_i >= alpha_i

    `BEEM.cost` weighs exits by depth (BEEM-C), `BEEM.accuracy` by their accuracy on validation
    data (BEEM-A). Thresholds come from `eefast.calibrate("beem", trace)` (Eq. 3).

    The authors' released code differs (zero-based weights, S reset to 0 on disagreement); this is
    the paper's rule.

    Args:
        weights: w_i >= 0, one number or one per exit; the paper has them in [0, 1].
        thresholds: alpha_i, one number or one per exit.
    """

    name = "beem"
    keep, gain = Keep.AGREE, Gain.CONFIDENCE

    weights: Values
    thresholds: Values

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", numbers(self.name, "weights", self.weights, 0))
        thresholds = numbers(self.name, "thresholds", self.thresholds, -math.inf)
        object.__setattr__(self, "thresholds", thresholds)

    @classmethod
    def cost(cls, num_exits: int, thresholds: Values, cost: float | None = None) -> BEEM:
        """BEEM-C (section 3.3): w_i = lambda * i, where lambda is the cost of one exit.

        Args:
            num_exits: exits of the model, L.
            thresholds: alpha_i, one number or one per exit.
            cost: lambda; 1 / L unless given, so that the weights end at 1 as in the paper.
        """
        num_exits = whole(cls.name, "num_exits", num_exits, 1)
        cost = 1 / num_exits if cost is None else number(cls.name, "cost", cost, 0)
        return cls(tuple(cost * i for i in range(1, num_exits + 1)), thresholds)

    @classmethod
    def accuracy(cls, accuracies: Values, thresholds: Values) -> BEEM:
        """BEEM-A (section 3.3): w_i is the accuracy of exit i on validation data, in [0, 1]."""
        return cls(accuracies, thresholds)

    @classmethod
    def default(cls, num_exits: int) -> BEEM:
        """BEEM-C at 1.5, the most careful threshold of the paper's search space (section 3.4)."""
        return cls.cost(num_exits, 1.5)

    @classmethod
    def settings(cls, trace: ExitTrace) -> list[BEEM]:
        """BEEM-A with each threshold of the paper's space (section 3.4, the classical method)."""
        accuracies = trace.accuracies().tolist()
        return [cls.accuracy(accuracies, alpha) for alpha in SEARCH_SPACE]

    def columns(self, num_exits: int) -> Columns:
        return Columns(self.weights, self.thresholds)
