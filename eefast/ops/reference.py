"""`impl="reference"`: the exit step in plain PyTorch, the specification of all the others."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from eefast.ops.recurrence import advance, reached, signals
from eefast.ops.step import Step


def exit_step(
    hidden: Tensor,  # (R, D) or (R, T, D)
    positions: Tensor | None,  # (N,) int64: token that the head reads; None: the first
    pooler_weight: Tensor | None,  # (D, D)
    pooler_bias: Tensor | None,  # (D,)
    weight: Tensor,  # (C, D)
    bias: Tensor | None,  # (C,)
    table: Tensor,  # (L, 3) float32: weight, threshold, tau of every exit
    rows: Tensor | None,  # (R,) int64: hidden[r] belongs to sample rows[r]; None: to sample r
    step: int,  # Step.pack()
    score: Tensor,  # (N,) float32
    prediction: Tensor,  # (N,) int32
    exit_layer: Tensor,  # (N,) int32
    logits: Tensor | None,  # (N, C) float32
    running: Tensor,  # (L,) bool
    control: Tensor | None,  # of no use here
) -> None:
    """One exit for all samples handed in; see `eefast.ops.exit_step` for the contract."""
    exit, layer, keep, gain, strict = Step.unpack(step)
    if rows is None:
        rows = torch.arange(len(hidden), device=hidden.device)
    if hidden.dim() == 3:
        tokens = torch.zeros_like(rows) if positions is None else positions[rows]
        hidden = hidden[torch.arange(len(hidden), device=hidden.device), tokens]
    still_here = exit_layer[rows] == 0
    rows, x = rows[still_here], hidden[still_here].float()

    if pooler_weight is not None:
        x = F.linear(x, pooler_weight.float(), None if pooler_bias is None else pooler_bias.float())
        x = x.tanh()
    z = F.linear(x, weight.float(), None if bias is None else bias.float())

    now = signals(z)
    w, threshold, tau = table[exit - 1]
    s = advance(score[rows], prediction[rows], now, keep=keep, gain=gain, weight=w, tau=tau)
    leaves = reached(s, threshold, strict=strict)
    if exit == len(table):
        leaves = torch.ones_like(leaves)

    score[rows] = s
    prediction[rows] = now.prediction.int()
    if logits is not None:
        logits[rows[leaves]] = z[leaves]
    exit_layer[rows[leaves]] = layer
    running[exit - 1] |= ~leaves.all()
