"""Shallow-Deep Networks: exits that get their weight as training goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from torch import Tensor

from eefast.training.joint import weighted_sum
from eefast.training.objectives import Exits, register_objective
from eefast.training.two_stage import FIRST, THEN_EXITS, check_other_exits

if TYPE_CHECKING:
    from eefast.multi_exit import MultiExitOutput
    from eefast.training.stages import Stage

START = 0.01


@register_objective("shallow-deep")
class ShallowDeep:
    """Shallow-Deep Networks (Kaya et al., ICML 2019): two ways to train exits.

        joint:    sum_(i<L) tau_i(t) CE(p_i, y) + CE(p_L, y),   tau_i(t) = 0.01 + t (C_i - 0.01)

    t goes from 0 to 1 over the training, and C_i is the share of the layers' cost that is spent up
    to exit i: at first the last exit learns almost alone, in the end late exits count for more than
    early ones. Trainer needs the callback `eefast.training.TrainingProgress` (`fine_tune` has it);
    evaluation apart from training has the weights of the end. The released code ramps from epoch to
    epoch, to min(C_i, 0.01 + t C_i), with C_i = 0.15, 0.3, ..., 0.9 for its six exits.

        exits only: two stages, as DeeBERT's: the network with its last exit, then, with all of
                    that frozen, the plain sum of the other exits' losses.

    The paper's exits-only training begins with a network that is trained already: if yours is,
    `fine_tune(..., epochs=(0, 3))` leaves the first stage out.

    With one output (C = 1) CE is the squared error.

    Args:
        exits: of the model.
        mode: "joint" (the paper's "SDN training") or "exits-only" (its "IC-only training").

    Raises:
        ValueError: another mode; or "exits-only" without exits before the last.
    """

    stages: tuple[Stage, ...]  # exits only
    progress: float | None  # joint

    def __init__(self, exits: Exits, *, mode: Literal["joint", "exits-only"] = "joint") -> None:
        if mode not in ("joint", "exits-only"):
            raise ValueError(f"shallow-deep: mode must be 'joint' or 'exits-only', got {mode!r}")
        total = sum(exits.costs)
        self._shares = [sum(exits.costs[:layer]) / total for layer in exits.layers]
        if mode == "exits-only":
            check_other_exits("shallow-deep", exits)
            self.stages = (FIRST, THEN_EXITS)
        else:
            self.progress = None

    def __call__(
        self,
        output: MultiExitOutput,
        labels: Tensor,  # (B,)
    ) -> Tensor:
        """The loss of joint training, a scalar."""
        done = 1.0 if self.progress is None else self.progress
        ramped = [START + done * (share - START) for share in self._shares[:-1]]
        return weighted_sum([*ramped, 1.0], output, labels)
