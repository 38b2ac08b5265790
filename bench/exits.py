"""One exit of BEEM, as every benchmark of the exit step calls it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from eefast.ops import ExitState, Gain, HeadWeights, Impl, Keep, Step, implementation

EXITS, TOKENS = 12, 32


def make_exit(
    head: str, width: int, classes: int, batch: int, device: str, dtype: torch.dtype
) -> tuple[Tensor, HeadWeights]:
    """Hidden states [B, 32, D], of which the head reads the first token, and random weights.

    Args:
        head: "pooler"; or "linear" or "vocabulary", which have none.
    """
    torch.manual_seed(0)
    made = dict(dtype=dtype, device=device)
    pooler = (None, None)
    if head == "pooler":
        pooler = (torch.randn(width, width, **made) * width**-0.5, torch.zeros(width, **made))
    weight = torch.randn(classes, width, **made) * width**-0.5
    weights = HeadWeights(*pooler, weight, torch.zeros(classes, **made))
    return torch.randn(batch, TOKENS, width, **made), weights


def exit_step(
    impl: Impl, hidden: Tensor, head: HeadWeights
) -> tuple[Callable[[], None], ExitState]:
    """The bare op as a call, and the state that it writes. No sample exits: no call is idle.

    Raises:
        RuntimeError: the implementation is not built.
    """
    batch, classes, device = len(hidden), len(head.weight), hidden.device
    op = implementation(impl, device, hidden.dtype, rows=batch, classes=classes)
    state = ExitState.start(batch, classes, EXITS, device)
    table = torch.tensor([[0.5, float("inf"), 0.0]] * EXITS, device=device)
    step = Step(exit=1, layer=1, keep=Keep.AGREE, gain=Gain.CONFIDENCE).pack()
    others = (None, *head, None, table, None, step, *state)
    return lambda: op(hidden, *others), state
