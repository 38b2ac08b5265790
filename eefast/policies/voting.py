"""EEIC: every exit so far has one vote; or patience."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from eefast.ops import Accumulate, Gain, Keep
from eefast.policies.base import Columns, Policy
from eefast.policies.pabee import PABEE
from eefast.policies.values import Values, number, numbers

if TYPE_CHECKING:
    from eefast.traces import ExitTrace


@dataclass(frozen=True)
class Voting(Policy):
    """EEIC's voting (Sun et al., 2021), Eq. 23:

        V_i = max_c |{j <= i : y_j = c}| / i^k;            leave when V_i >= delta

    The answer is the class with most votes. The paper leaves ties open: here the most recent
    prediction among the tied classes wins. The logits of the output are the votes. EEIC's other
    rule is `EEICPatience`; the objective "eeic" trains for both.

    Args:
        threshold: delta, one number or one per exit.
        exponent: k, in [0, 1): 0 counts votes, and the larger it is, the more a late exit asks
            for. The paper chooses from 0, 0.25, 0.5 and 0.75.
    """

    name = "eeic"
    keep, gain = Keep.NEVER, Gain.VOTES
    accumulate = Accumulate.VOTES

    threshold: Values
    exponent: float = 0.0

    def __post_init__(self) -> None:
        threshold = numbers(self.name, "threshold", self.threshold, 0)
        object.__setattr__(self, "threshold", threshold)
        exponent = number(self.name, "exponent", self.exponent, 0, math.nextafter(1, 0))
        object.__setattr__(self, "exponent", exponent)

    @classmethod
    def default(cls, num_exits: int) -> Voting:
        """More than half of all exits agree; the paper names no setting, it searches."""
        return cls(num_exits // 2 + 1)

    @classmethod
    def settings(cls, trace: ExitTrace) -> list[Voting]:
        """The paper's four exponents, each with every value that V can take as the threshold."""
        exits = trace.num_exits
        exponents = (0.0, 0.25, 0.5, 0.75)
        found = []
        for k in exponents:
            weights = cls(0, k).table(exits)[:, 0]
            votes = torch.arange(1, exits + 1, dtype=torch.float32, device="cpu")
            # In float32 as the exit step multiplies: whether V reaches it must not be rounding.
            values = (weights[:, None] * votes).tril().unique()
            found += [cls(delta, k) for delta in values[values > 0].tolist()]
        return found

    def columns(self, num_exits: int) -> Columns:
        weights = [i**-self.exponent for i in range(1, num_exits + 1)]
        return Columns(weights, self.threshold)


class EEICPatience(PABEE):
    """EEIC's other rule (Sun et al., 2021, section 4): PABEE's, over exits trained by "eeic".

    A sample leaves when its prediction has been unchanged for s layers in a row: S_i >= s, where S
    counts agreements as PABEE's does.
    """

    name = "eeic-patience"
