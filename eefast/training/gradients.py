"""Gradients that are scaled on their way into the backbone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def scaled_gradient(x: Tensor, factor: float) -> Tensor:
    """`x`, through which gradients flow multiplied by `factor`."""
    return x if factor == 1 else _Scaled.apply(x, factor)  # type: ignore[no-untyped-call]


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return gradient * ctx.factor, None
