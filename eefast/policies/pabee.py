"""PABEE: exit when the prediction has not changed for some exits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from eefast.ops import Gain, Keep
from eefast.policies.base import Columns, Policy
from eefast.policies.values import number, whole

if TYPE_CHECKING:
    from eefast.traces import ExitTrace


@dataclass(frozen=True)
class PABEE(Policy):
    """PABEE (Zhou et al., NeurIPS 2020), Eq. 2, and for regression Eq. 3:

        S_i = S_(i-1) + 1    if the prediction is that of exit i - 1; with one output,
                             if |z_i - z_(i-1)| < tau
        S_i = 0              otherwise;            exit when S_i >= patience

    The earliest exit is therefore `patience + 1`. `patience = 0` runs all layers, as in the
    authors' code. Eq. 3 is strict, and so is that code, whose tau (`regression_threshold`) is 0
    unless given: no two exits agree then. Here a model with one output refuses a tau of 0.

    Args:
        patience: t, the number of agreements in a row to wait for.
        tolerance: tau, in the unit of the output; for regression only.
    """

    name = "pabee"
    keep, gain = Keep.AGREE, Gain.AGREE

    patience: int
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "patience", whole(self.name, "patience", self.patience, 0))
        object.__setattr__(self, "tolerance", number(self.name, "tolerance", self.tolerance, 0))

    @classmethod
    def default(cls, num_exits: int) -> PABEE:
        """Half of the exits: the paper's 6 for 12 layers."""
        return cls(max(1, num_exits // 2))

    @classmethod
    def settings(cls, trace: ExitTrace) -> list[PABEE]:
        """Every patience with which a sample can leave early, 1 to L - 1.

        For regression each of them with each tolerance that is a multiple of 5 % of the
        differences between exits in a row, from least to largest.
        """
        patiences = range(1, max(2, trace.num_exits))
        if trace.num_classes > 1:
            return [cls(t) for t in patiences]
        differences = trace.logits.diff(dim=0).abs().cpu().numpy()
        if not differences.size:
            return []
        tolerances = np.unique(np.quantile(differences, np.linspace(0.05, 1, 20))).tolist()
        return [cls(t, tau) for t in patiences for tau in tolerances if tau > 0]

    def columns(self, num_exits: int) -> Columns:
        return Columns(thresholds=self.patience or math.inf, tau=self.tolerance)
