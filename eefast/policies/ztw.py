"""Zero Time Waste: the confidence of an ensemble of all exits so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eefast.ops import Accumulate
from eefast.policies.base import Columns
from eefast.policies.threshold import Confidence
from eefast.policies.values import Values, numbers

PLAIN = 2.0**24
"""Beside all other weights together these do not count in float32."""


@dataclass(frozen=True)
class ZTW(Confidence):
    """Zero Time Waste (Wolczyk et al., NeurIPS 2021), Eq. 4: a weighted geometric ensemble.

        P_i ~ prod_(j <= i) p_j^(w_j / (w_1 + ... + w_i));        leave when max P_i > tau

    The paper's heads are in a cascade: each reads the logits of the one before. That is the model's
    part, `attach_exits(..., cascade=True)`, the default with objective "ztw"; see
    `eefast.heads.ExitHeads`. The policy takes logits as they are, from any heads.

    The answer is the ensemble's, and the comparison strict. `eefast.calibrate("ztw", trace)` finds
    the weights: those of the lowest cross-entropy of all ensembles on the trace.

    The paper gives the ensemble of exit i weights of its own, w_ij, and a bias for each class; here
    exit j has one weight in all ensembles, and there is no bias. The released code takes the mean
    over j of exp(w_ij) ln p_j. Its last exit is the plain head: `plain_last=True`.

    Args:
        threshold: tau, one number or one per exit; a probability, so from 1 on none leaves early.
        weights: w_j >= 0, one number or one per exit. Where they are all 0 so far, the exit stands
            for itself.
        plain_last: whether the last exit answers by itself. (Its weight is then 2^24 times that of
            all others together: to float32, it is alone.)
    """

    name = "ztw"
    strict = True
    accumulate = Accumulate.LOG_PROBABILITIES

    weights: Values = 1.0
    plain_last: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "weights", numbers(self.name, "weights", self.weights, 0))
        if not isinstance(self.plain_last, bool):
            raise ValueError(
                f"{self.name}: plain_last must be True or False, got {self.plain_last!r}"
            )

    def columns(self, num_exits: int) -> Columns:
        if not self.plain_last:
            return Columns(thresholds=self.threshold, tau=self.weights)
        w = self.weights
        weights = list(w) if isinstance(w, Sequence) else [w] * num_exits
        return Columns(thresholds=self.threshold, tau=[*weights[:-1], PLAIN * sum(weights[:-1])])
