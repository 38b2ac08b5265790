"""What the exit step works on: the weights of a head, and the running state of a call."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from eefast.ops import _native
from eefast.ops.recurrence import NO_PREDICTION


class HeadWeights(NamedTuple):
    """The weights of one exit head, as the exit step takes them.

    linear: logits = weight @ h + bias. pooler: h is replaced by
    tanh(pooler_weight @ h + pooler_bias) first.
    """

    pooler_weight: Tensor | None  # (D, D) or None
    pooler_bias: Tensor | None  # (D,) or None
    weight: Tensor  # (C, D)
    bias: Tensor | None  # (C,) or None


class ExitState(NamedTuple):
    """The running state of the N samples of one call, in the caller's order."""

    score: Tensor  # (N,) float32: S_i
    prediction: Tensor  # (N,) int32: at the last exit met; -1 before the first
    exit_layer: Tensor  # (N,) int32: layer after which the sample left; 0 while running
    # (N, C) float32: of the exit at which the sample left, anything while it runs; None where
    # only the prediction is wanted.
    logits: Tensor | None
    running: Tensor  # (L,) bool: whether any sample was still running after exit i
    # (L, 2) int64, GPUs only. How many blocks of exit i's launch are done (0 between launches), and
    # the cudaGraphConditionalHandle that exit i sets to `running`, or 0 for none.
    control: Tensor | None = None

    @classmethod
    def start(
        cls,
        samples: int,
        classes: int | None,
        exits: int,
        device: torch.device | str = "cpu",
    ) -> ExitState:
        """The state before the first exit; without logits if `classes` is None."""
        if device == "cpu" and classes is not None and _native.AVAILABLE:
            # Five torch functions take 40 us longer when the caches are cold.
            return cls(*torch.ops.eefast.exit_state.default(samples, classes, exits))
        full, f32, i32 = torch.full, torch.float32, torch.int32
        return cls(
            full((samples,), 0.0, dtype=f32, device=device),
            full((samples,), NO_PREDICTION, dtype=i32, device=device),
            full((samples,), 0, dtype=i32, device=device),
            None if classes is None else full((samples, classes), 0.0, dtype=f32, device=device),
            full((exits,), False, dtype=torch.bool, device=device),
            None
            if torch.device(device).type == "cpu"
            else full((exits, 2), 0, dtype=torch.int64, device=device),
        )
