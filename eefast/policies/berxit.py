"""BERxiT: leave when a learned certainty is high enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from eefast.ops import Gain, Keep, ScorerKind
from eefast.policies.base import Columns, Policy
from eefast.policies.values import Values, numbers, probabilities

if TYPE_CHECKING:
    from eefast.traces import ExitTrace


@dataclass(frozen=True)
class BERxiT(Policy):
    """BERxiT's learning to exit (Xin et al., EACL 2021): S_i = q_i >= t.

    q_i, the certainty of exit i, is learned beside the classifiers by objective "berxit": a linear
    of what the classifier reads, shared by all exits, and a sigmoid. The released code predicts the
    probability of being wrong instead, and leaves below a threshold (strictly): 1 - q of ours.

    Args:
        threshold: t, one number or one per exit; a probability, so above 1 nothing leaves early.
    """

    name = "berxit"
    keep, gain = Keep.NEVER, Gain.SCORE
    scorer = ScorerKind.ROW

    threshold: Values

    def __post_init__(self) -> None:
        threshold = numbers(self.name, "threshold", self.threshold, 0)
        object.__setattr__(self, "threshold", threshold)

    @classmethod
    def default(cls, num_exits: int) -> BERxiT:
        """0.9: the exit is right nine times out of ten, if the certainty is true."""
        return cls(0.9)

    @classmethod
    def settings(cls, trace: ExitTrace) -> list[BERxiT]:
        """Thresholds from 0.02 to 0.98."""
        return [cls(t) for t in probabilities()]

    def columns(self, num_exits: int) -> Columns:
        return Columns(thresholds=self.threshold)
