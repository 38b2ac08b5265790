"""Labels of a batch: what they may be, and the loss of logits against them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def check_labels(labels: Any, classes: int, samples: int) -> None:
    """Refuse labels that a batch of `samples` samples cannot have, before a model runs.

    With several classes: class numbers (`check_classes`). With one output, regression: real
    numbers, [B] or [B, 1].

    Raises:
        TypeError: not a tensor.
        ValueError: another shape, dtype or range.
    """
    if classes > 1:
        check_classes(labels, classes, samples)
        return
    _check_tensor(labels)
    if labels.dtype not in _INTEGERS and not labels.is_floating_point():
        raise ValueError(f"labels must be numbers, got {labels.dtype}")
    if list(labels.shape) not in ([samples], [samples, 1]):
        raise ValueError(f"labels must be [{samples}], got {list(labels.shape)}")


def check_classes(labels: Any, classes: int, samples: int) -> None:
    """Refuse labels that are not class numbers, integers in [0, classes), of shape [samples].

    On other devices than the CPU values are not looked at: reading them would wait.

    Raises:
        TypeError: not a tensor.
        ValueError: another shape, dtype or range.
    """
    _check_tensor(labels)
    if labels.dtype not in _INTEGERS:
        raise ValueError(f"labels must be integers in [0, {classes}), got {labels.dtype}")
    if list(labels.shape) != [samples]:
        raise ValueError(f"labels must be [{samples}], got {list(labels.shape)}")
    if labels.is_cpu and samples:
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= classes:
            raise ValueError(f"labels must be in [0, {classes}), got {low}..{high}")


def _check_tensor(labels: Any) -> None:
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels must be a tensor, got {type(labels).__name__}")


def task_loss(
    logits: Tensor,  # (B, C)
    labels: Tensor,  # (B,)
) -> Tensor:
    """Cross-entropy in float32, or the squared error if there is one output (C = 1)."""
    if logits.shape[-1] == 1:
        return F.mse_loss(logits.squeeze(-1).float(), labels.float().reshape(len(logits)))
    return F.cross_entropy(logits.float(), labels.long())
