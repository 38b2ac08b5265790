"""Layers that are packed once and run by this package's CPU kernels (csrc/cpu/layers)."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from eefast.backbones import Backbone, Context, Inputs
from eefast.backbones.families import EncoderBackbone
from eefast.lowering.embeddings import embeddings_of
from eefast.lowering.families import program_of
from eefast.lowering.program import Block, Linear, Norm, NotLowered, Program
from eefast.ops import _native

Precision = Literal["float32", "bfloat16", "int8"]
"""Of the products of linear layers. Sums, norms, activations and attention are in float32."""

PRECISIONS: tuple[Precision, ...] = get_args(Precision)


class PackedLayers:
    """The layers of a program, packed in one precision. Never changed; copies share it.

    `eefast.lowering.ReferenceLayers` says what they compute.

    Args:
        program: reads its weights once.
        precision: int8 has one scale per output of a layer and, at run time, one scale and one
            zero point per token.

    Raises:
        RuntimeError: weights that int8 cannot hold: infinite ones, or NaN.
    """

    def __init__(self, program: Program, precision: Precision) -> None:
        blocks = [block for layer in program.layers for block in layer]
        self.precision = precision
        self._operands = program.operands
        self._kinds = tuple(
            dict.fromkeys(k for b in blocks if (k := b.attention.rotary) is not None)
        )
        self._window = any(block.attention.window is not None for block in blocks)
        packed = {id(block): self._pack(block) for block in program.blocks}
        self._layers = [[packed[id(block)] for block in layer] for layer in program.layers]
        self._runs: dict[range, list[Tensor]] = {}

    def __str__(self) -> str:
        return f"{self.precision} on {torch.ops.eefast.cpp_layer_kernel(self.precision)}"

    @property
    def bytes(self) -> int:
        """Of all packed weights."""
        tensors = {id(block): block for layer in self._layers for block in layer}
        return sum(block.numel() for block in tensors.values())

    def operands(self, context: Any) -> PackedOperands:
        """What the kernels take of a context, made once per call."""
        operands = self._operands(context)
        mask, bias = operands.mask, operands.bias
        rotary = (t for kind in self._kinds for t in operands.rotary[kind])
        return PackedOperands(
            None if mask is None else mask[:, 0, 0].float().contiguous(),
            None if bias is None else bias[0].float().contiguous(),
            [table.float().contiguous() for table in rotary],
            operands.hides_with if self._window else 0.0,
        )

    def run(self, layers: range, hidden: Tensor, operands: PackedOperands) -> Tensor:
        """The hidden states [B, T, D] float32 after some layers (1-based)."""
        if not layers:
            return hidden
        after: Tensor = torch.ops.eefast.packed_blocks(
            hidden,
            self.blocks(layers),
            operands.mask,
            operands.bias,
            operands.tables,
            operands.outside,
        )
        return after

    def blocks(self, layers: range) -> list[Tensor]:
        """The packed blocks of some layers (1-based)."""
        blocks = self._runs.get(layers)
        if blocks is None:
            of_layers = (self._layers[layer - 1] for layer in layers)
            blocks = self._runs[layers] = [block for layer in of_layers for block in layer]
        return blocks

    def _pack(self, block: Block) -> Tensor:
        attention, feed = block.attention, block.feed_forward
        linears = (attention.qkv, attention.output, feed.up, feed.down)
        width = feed.down.weight.shape[0]
        norms = (block.attention_norm, block.feed_forward_norm)
        packed: Tensor = torch.ops.eefast.pack_block(
            *(self._pack_linear(linear) for linear in linears),
            torch.stack([vector for norm in norms for vector in _vectors(norm, width)]),
            *(-1.0 if norm is None else norm.eps for norm in norms),
            feed.activation.value,
            feed.gated,
            block.pre_norm,
            attention.heads,
            attention.head_dim,
            attention.scale,
            -1 if attention.window is None else attention.window,
            -1 if attention.rotary is None else self._kinds.index(attention.rotary),
        )
        return packed

    def _pack_linear(self, linear: Linear) -> Tensor:
        bias = linear.bias
        packed: Tensor = torch.ops.eefast.pack_linear(
            linear.weight.float(), None if bias is None else bias.float(), self.precision
        )
        return packed

    def __deepcopy__(self, memo: dict[int, Any]) -> PackedLayers:
        return self


@dataclasses.dataclass(frozen=True, slots=True)
class PackedOperands:
    """`Operands` as the kernels take them, in float32."""

    mask: Tensor | None  # (B or 1, T)
    bias: Tensor | None  # (heads, T, T)
    tables: list[Tensor]  # cosines and sines of each kind, (B or 1, T, head_dim)
    outside: float  # the score of tokens outside a window


@dataclasses.dataclass(frozen=True, slots=True)
class PackedContext(Context):
    """The context of the model's own layers, for exits to read by, and what the kernels take."""

    own: Context
    operands: PackedOperands
    layers: PackedLayers

    def select(self, rows: Tensor) -> PackedContext:
        own = self.own.select(rows)
        return PackedContext(own, self.layers.operands(own), self.layers)


class PackedBackbone(Backbone):
    """A backbone whose layers are packed, and its embeddings one op where they are known.

    Masks and readout stay its own.

    Args:
        inner: its layers are not run, and need no weights.
        layers: of the same model.

    Attributes:
        layers: the packed ones.
    """

    def __init__(self, inner: EncoderBackbone, layers: PackedLayers) -> None:
        self.takes, self.main_inputs, self.absent = inner.takes, inner.main_inputs, inner.absent
        super().__init__(inner.model, inner.widths, inner.costs)
        self.max_length = inner.max_length
        self._inner = inner
        self.layers = layers
        self._embed = embeddings_of(inner)

    @property
    def reads_first_token(self) -> bool:
        """Whether an exit reads the first token of a row as it is."""
        return self._inner.reads_first_token

    def check_ids(self, inputs: Inputs) -> None:
        self._inner.check_ids(inputs)

    def start(self, inputs: Inputs) -> tuple[Tensor, PackedContext]:
        inner, embed = self._inner, self._embed
        if embed is not None and "input_ids" in inputs:
            hidden, hides = embed(inputs)
            context = inner.context(hidden, inputs["attention_mask"] if hides else None, inputs)
        else:
            hidden, context = inner.start(inputs)
        packed = self.layers
        return hidden.contiguous(), PackedContext(context, packed.operands(context), packed)

    def layer(self, index: int, hidden: Tensor, context: Any) -> Tensor:
        return self.run(range(index, index + 1), hidden, context)

    def run(self, layers: range, hidden: Tensor, context: Any) -> Tensor:
        return self.layers.run(layers, hidden, context.operands)

    def readout(self, index: int, hidden: Tensor, context: Any) -> tuple[Tensor, Tensor | None]:
        return self._inner.readout(index, hidden, context.own)


def _vectors(norm: Norm | None, width: int) -> tuple[Tensor, Tensor]:
    """Weight and bias [D] float32 of a norm."""
    weight, bias = (None, None) if norm is None else (norm.weight, norm.bias)
    return (
        torch.ones(width) if weight is None else weight.float(),
        torch.zeros(width) if bias is None else bias.float(),
    )


def pack(backbone: Backbone, precision: Precision) -> PackedLayers | NotLowered:
    """A backbone's layers as they are now, packed, or why they cannot be."""
    if not _native.AVAILABLE:
        return NotLowered("eefast's C++ extension is not built here")
    program = program_of(backbone)
    return program if isinstance(program, NotLowered) else PackedLayers(program, precision)
