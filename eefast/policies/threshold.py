"""Policies that judge each exit alone, by its confidence or its entropy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eefast.ops import Gain, Keep
from eefast.policies.base import Columns, Policy
from eefast.policies.values import Values, numbers, probabilities

if TYPE_CHECKING:
    from eefast.traces import ExitTrace


@dataclass(frozen=True)
class Confidence(Policy):
    """Exit when the highest class probability reaches a threshold: S_i = C_i >= tau.

    The rule of no one paper. `MSDNet`, `RightTool` and `ShallowDeep` are the papers' forms of it.

    Args:
        threshold: tau, one number or one per exit; a probability, so above 1 no sample exits early.
    """

    name = "confidence"
    keep, gain = Keep.NEVER, Gain.CONFIDENCE

    threshold: Values

    def __post_init__(self) -> None:
        threshold = numbers(self.name, "threshold", self.threshold, 0)
        object.__setattr__(self, "threshold", threshold)

    @classmethod
    def default(cls, num_exits: int) -> Confidence:
        """0.9, the setting that the BEEM paper's Fig. 1 gives for this rule."""
        return cls(0.9)

    @classmethod
    def settings(cls, trace: ExitTrace) -> list[Confidence]:
        """Thresholds from 0.02 to 0.98, the same for all exits."""
        return [cls(tau) for tau in probabilities()]

    def columns(self, num_exits: int) -> Columns:
        return Columns(thresholds=self.threshold)


@dataclass(frozen=True)
class Entropy(Policy):
    """Exit when the normalised entropy is below a threshold: H_i < tau, as S_i = -H_i > -tau.

    The rule of no one paper. `BranchyNet`, `DeeBERT` and `ElasticBERT` measure entropy in nats, and
    `FastBERT` leaves at H <= tau.

    Args:
        threshold: tau on the entropy over ln C, in [0, 1]; one number or one per exit.
    """

    name = "entropy"
    keep, gain, strict = Keep.NEVER, Gain.NEGATIVE_ENTROPY, True

    threshold: Values

    def __post_init__(self) -> None:
        threshold = numbers(self.name, "threshold", self.threshold, 0)
        object.__setattr__(self, "threshold", threshold)

    @classmethod
    def default(cls, num_exits: int) -> Entropy:
        """0.5, the middle one of the settings that FastBERT reports (0.1, 0.5, 0.8)."""
        return cls(0.5)

    @classmethod
    def settings(cls, trace: ExitTrace) -> Sequence[Entropy]:
        """Thresholds from 0.02 to 0.98, the same for all exits."""
        return [cls(tau) for tau in probabilities()]

    def columns(self, num_exits: int) -> Columns:
        if isinstance(self.threshold, Sequence):
            return Columns(thresholds=[-tau for tau in self.threshold])
        return Columns(thresholds=-self.threshold)
