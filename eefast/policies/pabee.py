"""PABEE: exit when the prediction has not changed for some exits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eefast.ops import Gain, Keep
from eefast.policies.base import Columns, Policy
from eefast.policies.values import whole

if TYPE_CHECKING:
    from eefast.traces import ExitTrace


@dataclass(frozen=True)
class PABEE(Policy):
    """PABEE (Zhou et al., NeurIPS 2020), Eq. 2:

        S_i = S_(i-1) + 1    if the prediction is that of exit i - 1
        S_i = 0              otherwise;            exit when S_i >= patience

    The earliest exit is therefore `patience + 1`. `patience = 0` runs all layers, as in the
    authors' code.

    Args:
        patience: t, the number of agreements in a row to wait for.
    """

    name = "pabee"
    keep, gain = Keep.AGREE, Gain.AGREE

    patience: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "patience", whole(self.name, "patience", self.patience, 0))

    @classmethod
    def default(cls, num_exits: int) -> PABEE:
        """Half of the exits: the paper's 6 for 12 layers."""
        return cls(max(1, num_exits // 2))

    @classmethod
    def settings(cls, trace: ExitTrace) -> list[PABEE]:
        """Every patience with which a sample can leave early, 1 to L - 1."""
        return [cls(t) for t in range(1, max(2, trace.num_exits))]

    def columns(self, num_exits: int) -> Columns:
        return Columns(thresholds=self.patience or math.inf)
