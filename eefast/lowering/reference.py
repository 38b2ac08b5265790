"""A program in plain PyTorch: the specification of what faster executors compute.

All is computed in float32 except the products of linears, whose operands are rounded:

- `bfloat16`: rows and weights to bfloat16, sums in float32.
- `int8`: weights to int8 by output channel, rows to uint8 by token with a zero point
  (`quantised_weights`, `quantised_rows`); sums in integers, then scaled, in float32.

Biases, norms, activations, residuals and all of attention between the two linears stay in float32.
`float64` is the measure of errors: everything in that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from eefast.lowering.program import (
    Activation,
    Attention,
    Block,
    FeedForward,
    Linear,
    Norm,
    Operands,
    Program,
)

Precision = Literal["float64", "float32", "bfloat16", "int8"]

_Product = Callable[[Tensor], Tensor]
_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    Activation.GELU: F.gelu,
    Activation.GELU_TANH: lambda x: F.gelu(x, approximate="tanh"),
    Activation.RELU: F.relu,
    Activation.SILU: F.silu,
}


class ReferenceLayers:
    """Runs a program layer by layer.

    Weights are rounded once, here; what is changed in the model later is not seen.
    """

    def __init__(self, program: Program, precision: Precision = "float32") -> None:
        self._program = program
        self._dtype = torch.float64 if precision == "float64" else torch.float32
        self._products: dict[Linear, _Product] = {}
        for block in program.blocks:
            attention, feed = block.attention, block.feed_forward
            for linear in (attention.qkv, attention.output, feed.up, feed.down):
                self._products[linear] = _product(linear, precision)

    def layer(self, index: int, hidden: Tensor, context: Any) -> Tensor:
        """The hidden states [B, T, D] after layer `index` (1-based), in float32 or float64.

        Args:
            index: 1 to the number of layers.
            hidden: [B, T, D] before it, in any dtype of floats.
            context: as the backbone's `start` made it.
        """
        operands = self._program.operands(context)
        hidden = hidden.to(self._dtype)
        for block in self._program.layers[index - 1]:
            hidden = self._block(block, hidden, operands)
        return hidden

    def _block(self, block: Block, x: Tensor, operands: Operands) -> Tensor:
        first, second = block.attention_norm, block.feed_forward_norm
        if block.pre_norm:
            x = x + self._attend(block.attention, _normed(x, first), operands)
            return x + self._feed(block.feed_forward, _normed(x, second))
        x = _normed(x + self._attend(block.attention, x, operands), first)
        return _normed(x + self._feed(block.feed_forward, x), second)

    def _attend(self, attention: Attention, x: Tensor, operands: Operands) -> Tensor:
        samples, tokens, _ = x.shape
        parts = (samples, tokens, 3, attention.heads, attention.head_dim)
        q, k, v = self._products[attention.qkv](x).view(parts).permute(2, 0, 3, 1, 4)
        if attention.rotary is not None:
            cos, sin = (table.to(x.dtype)[:, None] for table in operands.rotary[attention.rotary])
            q, k = (_rotated(part, cos, sin) for part in (q, k))
        scores = attention.scale * q @ k.transpose(-1, -2)
        for term in (operands.bias, operands.mask):
            if term is not None:
                scores = scores + term.to(x.dtype)
        if attention.window is not None:
            places = torch.arange(tokens, device=x.device)
            outside = (places[:, None] - places).abs() > attention.window
            scores = scores.masked_fill(outside, operands.hides_with)
        sees_nothing = scores.isneginf().all(-1, keepdim=True)
        seen = (scores.softmax(-1).masked_fill(sees_nothing, 0) @ v).transpose(1, 2)
        return self._products[attention.output](seen.reshape(samples, tokens, -1))

    def _feed(self, feed: FeedForward, x: Tensor) -> Tensor:
        inner, act = self._products[feed.up](x), _ACTIVATIONS[feed.activation]
        if feed.gated:
            activated, gate = inner.chunk(2, -1)
            return self._products[feed.down](act(activated) * gate)
        return self._products[feed.down](act(inner))


def quantised_rows(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows [..., I] float32 as uint8: values [..., I], scale [..., 1] f32, zero point [..., 1].

    The range always includes 0: scale = (max(x, 0) - min(x, 0)) / 255 (1 for a row of zeros),
    zero = round(-min(x, 0) / scale), value = clamp(round(x / scale) + zero, 0, 255); x is about
    (value - zero) * scale. Halves go to the even number.
    """
    low, high = x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
    scale = (high - low) / 255
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    zero = (-low / scale).round().clamp(0, 255)
    values = ((x / scale).round() + zero).clamp(0, 255)
    return values.to(torch.uint8), scale, zero.to(torch.uint8)


def quantised_weights(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weights [O, I] as int8 [O, I] in -127..127, and the scale [O] float32 of each output.

    scale = max |w| / 127 (1 for a row of zeros); w is about value * scale.
    """
    weight = weight.float()
    scale = weight.abs().amax(-1) / 127
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    return (weight / scale[:, None]).round().clamp(-127, 127).to(torch.int8), scale


def _product(linear: Linear, precision: Precision) -> _Product:
    weight, bias = linear.weight, linear.bias
    if precision == "int8":
        return _int8_product(weight, bias)
    if precision == "bfloat16":
        rounded = weight.bfloat16().float()
        shift = None if bias is None else bias.float()
        return lambda x: F.linear(x.bfloat16().float(), rounded, shift)
    dtype = getattr(torch, precision)
    matrix, vector = weight.to(dtype), None if bias is None else bias.to(dtype)
    return lambda x: F.linear(x, matrix, vector)


def _int8_product(weight: Tensor, bias: Tensor | None) -> _Product:
    values, scale = quantised_weights(weight)
    matrix = values.double()  # sums of integers are exact in it
    sums = matrix.sum(-1)
    shift = 0 if bias is None else bias.float()

    def product(x: Tensor) -> Tensor:
        rows, row_scale, zero = quantised_rows(x)
        total = F.linear(rows.double(), matrix) - zero.double() * sums
        return total.float() * row_scale * scale + shift

    return product


def _normed(x: Tensor, norm: Norm | None) -> Tensor:
    if norm is None:
        return x
    weight, bias = (None if p is None else p.to(x.dtype) for p in (norm.weight, norm.bias))
    return F.layer_norm(x, x.shape[-1:], weight, bias, norm.eps)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin
