"""The layer program: what the layers of a backbone compute, as data.

A layer is one block or more (ALBERT's groups have several); blocks that share their weights are
one object. A block is, with `attend` and `feed` below and a norm that is the identity where None:

    post-norm:  h = norm_1(x + attend(x));   y = norm_2(h + feed(h))
    pre-norm:   h = x + attend(norm_1(x));   y = h + feed(norm_2(h))

    attend(x):  q, k, v = x W_qkv^T + b, each split into heads; q and k are rotated where there are
                rotary tables; softmax(scale q k^T + bias + mask, hidden outside the window) v; W_o
    feed(x):    W_down act(W_up x), or W_down (act(u) * g) with u, g the halves of W_up x if gated

A row of scores that is -inf throughout attends to nothing: its attention is zero.

The tensors are the model's own parameters, not copies: whoever packs them reads them once.
`eefast.lowering.reference` runs a program in plain PyTorch and is its specification.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


class Activation(enum.Enum):
    """Between the two linears of a feed-forward."""

    GELU = "gelu"  # exact: x Phi(x)
    GELU_TANH = "gelu_tanh"  # x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2
    RELU = "relu"
    SILU = "silu"


@dataclass(frozen=True, eq=False)
class Linear:
    """x W^T + b, of parts one below the other: q, k and v are one linear of three parts."""

    weights: tuple[Tensor, ...]  # [O_p, I]
    biases: tuple[Tensor, ...]  # [O_p]; empty: none

    @property
    def weight(self) -> Tensor:
        """[O, I]; a copy where there are several parts."""
        return self.weights[0] if len(self.weights) == 1 else torch.cat(self.weights)

    @property
    def bias(self) -> Tensor | None:
        """[O], or None."""
        return torch.cat(self.biases) if self.biases else None


@dataclass(frozen=True, eq=False)
class Norm:
    """Layer norm over the last axis: (x - mean) / sqrt(variance + eps) * weight + bias."""

    weight: Tensor | None  # [D]; None: ones
    bias: Tensor | None  # [D]; None: zeros
    eps: float


@dataclass(frozen=True, eq=False)
class Attention:
    """See the module's docstring; rows of `qkv` are q, k, v, each [heads, head_dim]."""

    qkv: Linear  # [3 heads head_dim, D]
    output: Linear  # [D, heads head_dim]
    heads: int
    head_dim: int
    scale: float
    window: int | None = None  # a token sees those at most so far from it; None: all
    rotary: str | None = None  # which of `Operands.rotary`; None: q and k stay


@dataclass(frozen=True, eq=False)
class FeedForward:
    """See the module's docstring."""

    up: Linear  # [F, D]; gated: [2 F, D], the activated half first
    down: Linear  # [D, F]
    activation: Activation
    gated: bool = False


@dataclass(frozen=True, eq=False)
class Block:
    """Attention and feed-forward, each with its norm (None: the identity) and its residual."""

    attention: Attention
    feed_forward: FeedForward
    attention_norm: Norm | None
    feed_forward_norm: Norm | None
    pre_norm: bool


@dataclass(frozen=True)
class Operands:
    """What the blocks of one call need beside the hidden states; the same for all layers.

    The mask hides with -inf, or with the least finite number, which lets a row that sees nothing
    attend to all T tokens alike. A window hides with the same number: `hides_with`.
    """

    mask: Tensor | None = None  # (B or 1, 1, 1, T), added to the scores; None hides nothing
    bias: Tensor | None = None  # (1, heads, T, T), added to the scores: relative positions
    # By `Attention.rotary`: cosines and sines, each (B or 1, T, head_dim), both halves alike. With
    # x1, x2 the halves of a head, rotated is (x1 cos - x2 sin, x2 cos + x1 sin).
    rotary: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @property
    def hides_with(self) -> float:
        """-inf if the mask has it, else the least number of its dtype; reads the mask."""
        if self.mask is None or not self.mask.numel() or bool(self.mask.isneginf().any()):
            return -torch.inf
        return torch.finfo(self.mask.dtype).min


@dataclass(frozen=True, eq=False)
class Program:
    """The layers of a backbone, without `start` and `readout`, which stay the backbone's own."""

    width: int  # D, of the hidden states before and after every block
    layers: tuple[tuple[Block, ...], ...]
    operands: Callable[[Any], Operands]  # from the context that the backbone's `start` makes

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Each block once, in the order of first use: what is to be packed."""
        return tuple({id(block): block for layer in self.layers for block in layer}.values())


@dataclass(frozen=True)
class NotLowered:
    """Why a backbone has no program, in one line."""

    why: str
