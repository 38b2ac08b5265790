"""MuE: one head, trained after every layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from eefast.labels import task_loss
from eefast.training.objectives import exit_logits_of, register_objective

if TYPE_CHECKING:
    from eefast.multi_exit import MultiExitOutput


@register_objective("mue")
class MuE:
    """MuE (Tang et al., CVPR 2023): layer-wise task loss, the mean of CE(p_i, y) over the layers.

    The paper's layers are those of a decoder, each of which learns the task; here, of one encoder.
    p_i is what the one head that all exits share makes of layer i's vector, so that the last
    layer's head can answer for any layer. Models get such a head with this objective
    (`share_head`), unless they are told otherwise.
    """

    needs_shared_head: ClassVar[bool] = True

    def __call__(
        self,
        output: MultiExitOutput,
        labels: Tensor,  # (B,)
    ) -> Tensor:
        """The loss, a scalar."""
        losses = [task_loss(logits, labels) for logits in exit_logits_of(output)]
        return torch.stack(losses).mean()
