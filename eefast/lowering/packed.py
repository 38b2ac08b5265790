"""Layers that are packed once and run by this package's CPU kernels (csrc/cpu/layers)."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from eefast.backbones import Backbone, Context, Inputs
from eefast.backbones.families import EncoderBackbone
from eefast.lowering.embeddings import embeddings_of
from eefast.lowering.families import program_of
from eefast.lowering.modules import CannotLowerError, check_module, norm
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


class Ragged(NamedTuple):
    """A batch without padding behind its texts."""

    hidden: Tensor  # (R, D) float32: the tokens of all samples, one sample behind the other
    lengths: Tensor  # (B,) int64: how many tokens each has
    tokens: int  # T, the axis of what is in `operands`
    operands: PackedOperands


class PackedReadout(NamedTuple):
    """What exits read, as `packed_stages` takes it."""

    mean: bool  # over the tokens, instead of the first
    weight: Tensor | None  # (D,) float32, of a norm that tokens pass before; None: none
    bias: Tensor | None
    eps: float


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

    def check_ids(self, inputs: Inputs) -> None:
        self._inner.check_ids(inputs)

    def start(self, inputs: Inputs) -> tuple[Tensor, PackedContext]:
        inner, embed = self._inner, self._embed
        if embed is not None and "input_ids" in inputs:
            samples, tokens = inputs["input_ids"].shape
            rows, _, hides = embed(inputs, ragged=False)
            hidden = rows.view(samples, tokens, self.widths[0])
            mask = inputs["attention_mask"] if hides else None
            context = inner.context(hidden, tokens, mask, inputs)
        else:
            hidden, context = inner.start(inputs)
        packed = self.layers
        return hidden.contiguous(), PackedContext(context, packed.operands(context), packed)

    def start_ragged(self, inputs: Inputs) -> Ragged:
        """As `start`, without the padding behind the last token that the mask shows."""
        inner, embed = self._inner, self._embed
        if embed is not None and "input_ids" in inputs:
            tokens = inputs["input_ids"].shape[1]
            rows, lengths, hides = embed(inputs, ragged=True)
            mask = inputs["attention_mask"] if hides else None
            context = inner.context(rows, tokens, mask, inputs)
        else:
            hidden, context = inner.start(inputs)
            tokens = hidden.shape[1]
            rows, lengths = without_padding(hidden, inputs.get("attention_mask"))
        return Ragged(rows, lengths, tokens, self.layers.operands(context))

    def ragged_readout(self) -> PackedReadout | None:
        """What exits read, with the norm's own weights; None: an op cannot compute it."""
        final = self._inner.final_norm()
        if final is None:
            return PackedReadout(self._inner.reads_mean, None, None, 0.0)
        try:
            check_module(final, ("LayerNorm",))
        except CannotLowerError:
            return None
        stated = norm(final)
        assert stated is not None
        vectors = _vectors(stated, self.widths[0])
        return PackedReadout(self._inner.reads_mean, *vectors, stated.eps)

    def layer(self, index: int, hidden: Tensor, context: Any) -> Tensor:
        return self.run(range(index, index + 1), hidden, context)

    def run(self, layers: range, hidden: Tensor, context: Any) -> Tensor:
        return self.layers.run(layers, hidden, context.operands)

    def readout(self, index: int, hidden: Tensor, context: Any) -> tuple[Tensor, Tensor | None]:
        return self._inner.readout(index, hidden, context.own)


def without_padding(hidden: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """The rows [R, D] of `hidden` [B, T, D] up to the last that `mask` [B, T] shows, and how many.

    All T of a sample of which it shows none.
    """
    samples, tokens, width = hidden.shape
    if mask is None:
        return hidden.reshape(-1, width), torch.full((samples,), tokens)
    places = torch.arange(1, tokens + 1)
    lengths = ((mask != 0) * places).amax(1)
    lengths[lengths == 0] = tokens
    return hidden[places <= lengths[:, None]], lengths


def _vectors(of: Norm | None, width: int) -> tuple[Tensor, Tensor]:
    """Weight and bias [D] float32 of a norm."""
    weight, bias = (None, None) if of is None else (of.weight, of.bias)
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
