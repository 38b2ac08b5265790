"""PCEE-BERT: exit after some confident exits in a row."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

from eefast.ops import Accumulate, Gain, Keep, ScorerKind
from eefast.policies.base import Columns, Policy
from eefast.policies.values import number, probabilities, whole

if TYPE_CHECKING:
    from eefast.traces import ExitTrace

P = TypeVar("P", bound="_Patient")
_ENSEMBLES = {None: Accumulate.NONE, "streak": Accumulate.STREAK_MEAN, "all": Accumulate.MEAN}


@dataclass(frozen=True)
class _Patient(Policy):
    """Exit after `patience` confident exits in a row; subclasses say what confident means."""

    patience: int
    threshold: float
    ensemble: Literal["streak", "all"] | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "patience", whole(self.name, "patience", self.patience, 1))
        threshold = number(self.name, "threshold", self.threshold, 0, 1)
        object.__setattr__(self, "threshold", threshold)
        if self.ensemble not in (None, "streak", "all"):
            raise ValueError(
                f"{self.name}: ensemble must be None, 'streak' or 'all', got {self.ensemble!r}"
            )

    @property
    def accumulate(self) -> Accumulate:
        return _ENSEMBLES[self.ensemble]

    @classmethod
    def default(cls: type[P], num_exits: int) -> P:
        """Two confident exits at tau = 0.5, the middle of the range that the paper sweeps."""
        return cls(min(2, num_exits), 0.5)

    @classmethod
    def settings(cls: type[P], trace: ExitTrace) -> list[P]:
        """Every patience from 2 (with 1 it is a plain threshold), each with tau 0.02 to 0.98."""
        longest = max(trace.num_exits - 1, 1)
        patiences = range(min(2, longest), longest + 1)
        return [cls(t, tau) for t in patiences for tau in probabilities()]

    def columns(self, num_exits: int) -> Columns:
        return Columns(thresholds=self.patience, tau=self.threshold)


@dataclass(frozen=True)
class PCEE(_Patient):
    """PCEE-BERT (Zhang et al., Findings of NAACL 2022), Eq. 2 to 4:

        S_i = S_(i-1) + 1    if exit i is confident
        S_i = 0              otherwise;            exit when S_i >= patience

    An exit is confident when its normalised entropy is below the threshold, strictly. The
    predictions need not agree. The earliest exit is `patience`.

    The cross-layer ensemble (section 4.6.3) answers with the mean of the probabilities of several
    exits; who leaves where does not change. The paper says "the layers that the forward pass has
    gone through"; the released code offers all of them, or those since the count was last reset.

    Args:
        patience: t, the number of confident exits in a row to wait for, at least 1.
        threshold: tau, in [0, 1].
        measure: "entropy", or "confidence" for what is also `PCEEv1`.
        ensemble: None (this exit answers), "all" (the mean of all exits so far) or "streak" (of the
            confident exits in a row; of this exit where it is not confident).
    """

    name = "pcee"

    measure: Literal["entropy", "confidence"] = "entropy"

    def __post_init__(self) -> None:
        super().__post_init__()
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


class PCEEv1(_Patient):
    """PCEE-BERT-v1 (section 4.6.1): an exit is confident when its confidence is above tau.

    The comparison is strict. All else is `PCEE`'s, whose objective it shares.

    Args:
        patience: as of `PCEE`.
        threshold: tau, in [0, 1].
        ensemble: as of `PCEE`.
    """

    name = "pcee-v1"
    keep, gain = Keep.CONFIDENCE_ABOVE, Gain.CONFIDENCE_ABOVE


class PCEEv2(_Patient):
    """PCEE-BERT-v2 (section 4.6.1): an exit is confident when its learned score is above tau.

    The score is BERxiT's, trained by objective "pcee-v2"; the comparison is strict. All else is
    `PCEE`'s.

    Args:
        patience: as of `PCEE`.
        threshold: tau, in [0, 1].
        ensemble: as of `PCEE`.
    """

    name = "pcee-v2"
    keep, gain = Keep.SCORE_ABOVE, Gain.SCORE_ABOVE
    scorer = ScorerKind.ROW
