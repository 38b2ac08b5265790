"""Exits drawn by gates, and what a draw costs: what PALBERT's and JEI-DNN's losses are made of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def exit_distribution(
    gates: Tensor,  # (L - 1, ...) in [0, 1]: leaving at an exit if no exit before was left
) -> Tensor:
    """P(exit = l) = g_l prod_(j<l) (1 - g_j), [L, ...]; the last exit takes what is left."""
    remaining = (1 - gates).cumprod(0)
    one = torch.ones_like(gates[:1]) if len(gates) else gates.new_ones(1, *gates.shape[1:])
    reached = torch.cat([one, remaining])
    return torch.cat([gates * reached[:-1], reached[-1:]])


def sample_losses(
    exit_logits: Sequence[Tensor],  # L times (B, C)
    labels: Tensor,  # (B,)
) -> Tensor:
    """The task loss of every sample at every exit, [L, B] float32 (see `eefast.labels`)."""
    if exit_logits[0].shape[-1] == 1:
        targets = labels.float().reshape(-1)
        return torch.stack([(logits.squeeze(-1).float() - targets) ** 2 for logits in exit_logits])
    targets = labels.long()
    return torch.stack(
        [F.cross_entropy(logits.float(), targets, reduction="none") for logits in exit_logits]
    )
