"""ElasticBERT: entropy or patience."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eefast.ops import Gain, Keep
from eefast.policies.base import Columns, Policy
from eefast.policies.branchynet import below, nats
from eefast.policies.values import Values, numbers, whole

if TYPE_CHECKING:
    from eefast.traces import ExitTrace


@dataclass(frozen=True)
class ElasticBERT(Policy):
    """ElasticBERT (Liu et al., NAACL 2022) with its two rules for dynamic early exit.

    `ElasticBERT(0.3, num_classes=2)` leaves when the entropy in nats is below the threshold
    (strictly, DeeBERT's rule), `ElasticBERT(patience=4)` when the prediction has stayed for that
    many exits (PABEE's rule). These are the rules of the released code; other papers compare with
    "ElasticBERT" by the highest probability, which is `Confidence`.

    Args:
        threshold: on the entropy, in nats; one number or one per exit. Needs `num_classes`.
        patience: agreements in a row to wait for; 0 runs all layers.

    Raises:
        ValueError: both or none of the two.
    """

    name = "elasticbert"

    threshold: Values | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        if (self.threshold is None) == (self.patience is None):
            raise ValueError(
                f"{self.name}: give threshold or patience, got threshold={self.threshold!r} and "
                f"patience={self.patience!r}"
            )
        if self.threshold is not None:
            threshold = numbers(self.name, "threshold", self.threshold, 0)
            object.__setattr__(self, "threshold", threshold)
        else:
            object.__setattr__(self, "patience", whole(self.name, "patience", self.patience, 0))

    @property
    def keep(self) -> Keep:
        return Keep.NEVER if self.patience is None else Keep.AGREE

    @property
    def gain(self) -> Gain:
        return Gain.NEGATIVE_ENTROPY if self.patience is None else Gain.AGREE

    @property
    def strict(self) -> bool:
        return self.patience is None

    @classmethod
    def default(cls, num_exits: int) -> ElasticBERT:
        """A patience of half of the exits, as PABEE's; the paper names no setting, it sweeps."""
        return cls(patience=max(1, num_exits // 2))

    @classmethod
    def settings(cls, trace: ExitTrace) -> list[ElasticBERT]:
        """Both rules: thresholds of 0.02 to 0.98 of the highest entropy, patience 1 to L - 1."""
        return [
            *(cls(tau, num_classes=trace.num_classes) for tau in nats(trace.num_classes)),
            *(cls(patience=t) for t in range(1, trace.num_exits)),
        ]

    def columns(self, num_exits: int) -> Columns:
        if self.threshold is not None:
            return below(self, self.threshold)
        return Columns(thresholds=self.patience or math.inf)
