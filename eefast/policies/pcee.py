"""PCEE-BERT: exit after some confident exits in a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from eefast.ops import Gain, Keep
from eefast.policies.base import Columns, Policy
from eefast.policies.values import number, probabilities, whole

if TYPE_CHECKING:
    from eefast.traces import ExitTrace


@dataclass(frozen=True)
class PCEE(Policy):
    """PCEE-BERT (Zhang et al., Findings of NAACL 2022), Eq. 2 to 4:

        S_i = S_(i-1) + 1    if exit i is confident
        S_i = 0              otherwise;            exit when S_i >= patience

    An exit is confident when its normalised entropy is below the threshold (the paper's main
    variant), or, with `measure="confidence"` (PCEE-BERT-v1), when its confidence is above it. The
    predictions need not agree. The earliest exit is `patience`.

    Args:
        patience: t, the number of confident exits in a row to wait for, at least 1.
        threshold: tau, in [0, 1]. Both comparisons are strict.
        measure: "entropy" or "confidence".
    """

    name = "pcee"

    patience: int
    threshold: float
    measure: Literal["entropy", "confidence"] = "entropy"

    def __post_init__(self) -> None:
        object.__setattr__(self, "patience", whole(self.name, "patience", self.patience, 1))
        threshold = number(self.name, "threshold", self.threshold, 0, 1)
        object.__setattr__(self, "threshold", threshold)
        if self.measure not in ("entropy", "confidence"):
            raise ValueError(
                f"{self.name}: measure must be 'entropy' or 'confidence', got {self.measure!r}"
            )

    @property
    def keep(self) -> Keep:
        return Keep.ENTROPY_BELOW if self.measure == "entropy" else Keep.CONFIDENCE_ABOVE

    @property
    def gain(self) -> Gain:
        return Gain.ENTROPY_BELOW if self.measure == "entropy" else Gain.CONFIDENCE_ABOVE

    @classmethod
    def default(cls, num_exits: int) -> PCEE:
        """Two confident exits at tau = 0.5, the middle of the range that the paper sweeps."""
        return cls(min(2, num_exits), 0.5)

    @classmethod
    def settings(cls, trace: ExitTrace) -> list[PCEE]:
        """Every patience from 2 (with 1 it is the entropy policy), each with tau 0.02 to 0.98."""
        longest = max(trace.num_exits - 1, 1)
        patiences = range(min(2, longest), longest + 1)
        return [cls(t, tau) for t in patiences for tau in probabilities()]

    def columns(self, num_exits: int) -> Columns:
        return Columns(thresholds=self.patience, tau=self.threshold)
