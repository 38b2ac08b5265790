"""PALBERT: leave when the probability of having left by now is high enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from eefast.ops import Gain, Keep, ScorerKind
from eefast.policies.base import Columns, Policy
from eefast.policies.values import Values, numbers, probabilities

if TYPE_CHECKING:
    from eefast.traces import ExitTrace


@dataclass(frozen=True)
class PALBERT(Policy):
    """PALBERT (Balagansky and Gavrilov, NeurIPS 2022), Q-exit: leave when the cdf exceeds q.

    A lambda layer after each exit gives lambda_i, the probability of leaving there if no exit
    before was left (PonderNet; objective "palbert" trains it). The exit is then distributed with

        cdf_i = 1 - prod_(j <= i) (1 - lambda_j) = (1 - lambda_i) cdf_(i-1) + lambda_i

    and a sample leaves at the first i with cdf_i > q: a quantile, where PonderNet draws an exit at
    random. The comparison is strict, as in the released code, whose default is q = 0.5.

    Args:
        threshold: q, one number (the released code's way) or one per exit; a probability.
    """

    name = "palbert"
    keep, gain, strict = Keep.NOT_SCORE, Gain.SCORE, True
    scorer = ScorerKind.ROW

    threshold: Values = 0.5

    def __post_init__(self) -> None:
        threshold = numbers(self.name, "threshold", self.threshold, 0)
        object.__setattr__(self, "threshold", threshold)

    @classmethod
    def settings(cls, trace: ExitTrace) -> list[PALBERT]:
        """q from 0.02 to 0.98, the same for all exits."""
        return [cls(q) for q in probabilities()]

    def columns(self, num_exits: int) -> Columns:
        return Columns(thresholds=self.threshold)
