"""Labels of a batch: what they may be, and the loss of logits against them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def check_labels(labels: Tensor, classes: int) -> None:
    """Raise ValueError unless all labels are class numbers, integers in [0, classes).

    On other devices than the CPU only their type is checked: reading them would wait.
    """
    if labels.is_floating_point() or labels.dtype is torch.bool:
        raise ValueError(f"labels must be integers in [0, {classes}), got {labels.dtype}")
    if (
        labels.is_cpu
        and labels.numel()
        and not (int(labels.min()) >= 0 and int(labels.max()) < classes)
    ):
        raise ValueError(
            f"labels must be in [0, {classes}), got {int(labels.min())}..{int(labels.max())}"
        )


def task_loss(
    logits: Tensor,  # (B, C)
    labels: Tensor,  # (B,)
) -> Tensor:
    """Cross-entropy in float32, or the squared error if there is one output (C = 1)."""
    if logits.shape[-1] == 1:
        return F.mse_loss(logits.squeeze(-1).float(), labels.float().reshape(len(logits)))
    return F.cross_entropy(logits.float(), labels)
