"""Policies that do not look at the sample: one depth for all."""

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
class Budgeted(Policy):
    """Every sample exits at one given exit; the other exits are not computed.

    Budgeted classification in its simplest form (MSDNet, Huang et al., ICLR 2018, section 5): as
    the recurrence, S_i = [i = exit] >= 1.

    Args:
        exit: 1-based exit at which to answer.
    """

    name = "budgeted"
    keep, gain = Keep.NEVER, Gain.ONE

    exit: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "exit", whole(self.name, "exit", self.exit, 1))

    @classmethod
    def default(cls, num_exits: int) -> Budgeted:
        """The middle exit."""
        return cls((num_exits + 1) // 2)

    @classmethod
    def settings(cls, trace: ExitTrace) -> list[Budgeted]:
        """Every exit."""
        return [cls(exit) for exit in range(1, trace.num_exits + 1)]

    def columns(self, num_exits: int) -> Columns:
        if self.exit > num_exits:
            raise ValueError(f"{self.name}: exit {self.exit} of a model with {num_exits} exits")
        return Columns([float(i == self.exit) for i in range(1, num_exits + 1)], 1.0)

    def exits_used(self, num_exits: int) -> range:
        return range(self.exit, self.exit + 1)


@dataclass(frozen=True)
class Never(Policy):
    """No sample leaves before the last exit: the full-depth model, no other exit computed."""

    name = "never"
    keep, gain = Keep.NEVER, Gain.ONE

    def columns(self, num_exits: int) -> Columns:
        return Columns(thresholds=math.inf)

    def exits_used(self, num_exits: int) -> range:
        return range(num_exits, num_exits + 1)
