"""`Step`: the small numbers of one exit, packed into one integer for the op.

They are known when a policy meets a model, long before the call. Each argument of an op costs
0.2 us of a call from Python and more when the caches are cold; one integer costs that once.
"""

from __future__ import annotations

from typing import NamedTuple

from eefast.ops.kinds import Accumulate, ScorerKind
from eefast.ops.recurrence import Recurrence

# Bits of the packed integer, from the lowest: exit 16, layer 16, keep 8, gain 8, strict 1,
# accumulate 3, scorer 2. csrc/arguments.h reads them too.
_LAYER, _KEEP, _GAIN, _STRICT, _ACCUMULATE, _SCORER = 16, 32, 40, 48, 49, 52

LARGEST_EXIT = (1 << 16) - 1
"""The largest exit and layer that fit."""


class Step(NamedTuple):
    """Which exit it is, and the policy's row: `Step(exit, layer, *recurrence)`."""

    exit: int  # 1-based row of the policy table
    layer: int  # 1-based layer after which it stands, written to exit_layer
    keep: int  # a Keep
    gain: int  # a Gain
    strict: bool = False  # exit at S > alpha rather than at S >= alpha
    accumulate: int = Accumulate.NONE
    scorer: int = ScorerKind.NONE

    @property
    def recurrence(self) -> Recurrence:
        """The policy's row."""
        return Recurrence(*self[2:])

    def pack(self) -> int:
        """The step as one integer."""
        return (
            self.exit
            | self.layer << _LAYER
            | int(self.keep) << _KEEP
            | int(self.gain) << _GAIN
            | int(self.strict) << _STRICT
            | int(self.accumulate) << _ACCUMULATE
            | int(self.scorer) << _SCORER
        )

    @classmethod
    def unpack(cls, packed: int) -> Step:
        """The step that `pack` made `packed` of."""
        return cls(
            packed & 0xFFFF,
            packed >> _LAYER & 0xFFFF,
            packed >> _KEEP & 0xFF,
            packed >> _GAIN & 0xFF,
            bool(packed >> _STRICT & 1),
            packed >> _ACCUMULATE & 7,
            packed >> _SCORER & 3,
        )
