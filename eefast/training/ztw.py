"""Zero Time Waste: every exit for itself, on a backbone that is frozen or learns with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from eefast.labels import task_loss
from eefast.training.objectives import Exits, exit_logits_of, register_objective
from eefast.training.stages import Stage
from eefast.training.two_stage import FIRST, THEN_EXITS, check_other_exits

if TYPE_CHECKING:
    from eefast.multi_exit import MultiExitOutput


@register_objective("ztw")
class ZTW:
    """Zero Time Waste (Wolczyk et al., NeurIPS 2021, section 3): the exits; ensembles come later.

        backbone:  CE(p_L, y)                  trains backbone and last head
        exits:     sum_(i<L) CE(p_i, y)        trains all other heads

    Heads are in a cascade (`eefast.heads.ExitHeads`), unless `attach_exits` is told otherwise.

    The paper adds exits to a trained backbone that stays as it is. Its second phase, the weights of
    the ensembles, needs no gradient of the model: `eefast.calibrate("ztw", trace)`.

    Args:
        frozen: False for one stage, sum_i CE(p_i, y), in which the backbone learns as well.

    Raises:
        ValueError: frozen is not True or False, or it is True and there are no other exits.
    """

    needs_cascade: ClassVar[bool] = True

    def __init__(self, exits: Exits, *, frozen: bool = True) -> None:
        if not isinstance(frozen, bool):
            raise ValueError(f"ztw: frozen must be True or False, got {frozen!r}")
        if frozen:
            check_other_exits("ztw", exits)
        self.stages: Sequence[Stage] | None = (FIRST, THEN_EXITS) if frozen else None

    def __call__(
        self,
        output: MultiExitOutput,
        labels: Tensor,  # (B,)
    ) -> Tensor:
        """The task losses of all exits, added up."""
        return torch.stack([task_loss(z, labels) for z in exit_logits_of(output)]).sum()
