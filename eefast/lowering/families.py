"""How each family of adapters states its layers as a program.

An entry is found by the exact class of the backbone: a subclass may compute something else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from eefast.backbones import Backbone
from eefast.backbones.families import (
    AlbertBackbone,
    BertBackbone,
    DebertaV2Backbone,
    DistilBertBackbone,
    ElectraBackbone,
    EncoderBackbone,
    EncoderContext,
    ModernBertBackbone,
    MPNetBackbone,
    RobertaBackbone,
    ViTBackbone,
)
from eefast.backbones.families.modernbert import SLIDING, ModernBertContext
from eefast.backbones.families.mpnet import MPNetContext
from eefast.lowering.modules import CannotLowerError, activation, check_module, linear, norm
from eefast.lowering.program import (
    Attention,
    Block,
    FeedForward,
    NotLowered,
    Operands,
    Program,
)


def program_of(backbone: Backbone) -> Program | NotLowered:
    """The layers of `backbone` as they are now, or why they cannot be stated as a program."""
    family = _FAMILIES.get(type(backbone))
    kind = backbone.model.config.model_type
    if isinstance(backbone, DebertaV2Backbone):
        return NotLowered(f"{kind}: its scores compare tokens with positions, layer by layer")
    if family is None or not isinstance(backbone, EncoderBackbone):
        return NotLowered(f"{kind}: no program is written for {type(backbone).__name__}")
    attention = backbone.model.config._attn_implementation
    if attention not in ("sdpa", "eager"):
        return NotLowered(f"{kind}: attn_implementation is {attention!r}; wanted sdpa or eager")
    blocks: dict[nn.Module, Block] = {}  # each once, for layers that share them
    layers = []
    try:
        for layer in backbone.layer_modules:
            check_module(layer, family.classes)
            modules = tuple(family.split(layer))
            for module in modules:
                if module not in blocks:
                    blocks[module] = family.block(module, backbone.model.config)
            layers.append(tuple(blocks[module] for module in modules))
    except CannotLowerError as error:
        return NotLowered(f"{kind}, layer {len(layers) + 1}: {error}")
    except AttributeError as error:  # of another version of transformers
        return NotLowered(f"{kind}, layer {len(layers) + 1}: laid out otherwise: {error}")
    return Program(backbone.widths[0], tuple(layers), family.operands)


def _bert(layer: Any, config: Any) -> Block:
    if layer.add_cross_attention or layer.is_decoder:
        raise CannotLowerError("it is a decoder's")
    inner, after = layer.attention.self, layer.attention.output
    return _post_norm(
        _attention(inner, (inner.query, inner.key, inner.value), after.dense),
        _feed_forward_of_bert(layer),
        after.LayerNorm,
        layer.output.LayerNorm,
    )


def _distilbert(layer: Any, config: Any) -> Block:
    inner, feed = layer.attention, layer.ffn
    return _post_norm(
        Attention(
            linear(inner.q_lin, inner.k_lin, inner.v_lin),
            linear(inner.out_lin),
            inner.n_heads,
            inner.attention_head_size,
            inner.scaling,
        ),
        FeedForward(linear(feed.lin1), linear(feed.lin2), activation(feed.activation)),
        layer.sa_layer_norm,
        layer.output_layer_norm,
    )


def _albert(layer: Any, config: Any) -> Block:
    inner = layer.attention
    return _post_norm(
        _attention(inner, (inner.query, inner.key, inner.value), inner.dense),
        FeedForward(linear(layer.ffn), linear(layer.ffn_output), activation(layer.activation)),
        inner.LayerNorm,
        layer.full_layer_layer_norm,
    )


def _mpnet(layer: Any, config: Any) -> Block:
    inner = layer.attention.attn
    scale = 1 / math.sqrt(inner.attention_head_size)
    return _post_norm(
        _attention(inner, (inner.q, inner.k, inner.v), inner.o, scale),
        _feed_forward_of_bert(layer),
        layer.attention.LayerNorm,
        layer.output.LayerNorm,
    )


def _attention(
    inner: Any, qkv: tuple[nn.Module, ...], output: nn.Module, scale: float | None = None
) -> Attention:
    """Of a module that names its heads as BERT's does."""
    return Attention(
        linear(*qkv),
        linear(output),
        inner.num_attention_heads,
        inner.attention_head_size,
        inner.scaling if scale is None else scale,
    )


def _feed_forward_of_bert(layer: Any) -> FeedForward:
    return FeedForward(
        linear(layer.intermediate.dense),
        linear(layer.output.dense),
        activation(layer.intermediate.intermediate_act_fn),
    )


def _post_norm(
    attention: Attention, feed: FeedForward, first: nn.Module, second: nn.Module
) -> Block:
    return Block(attention, feed, norm(first), norm(second), pre_norm=False)


def _modernbert(layer: Any, config: Any) -> Block:
    inner, feed, kind = layer.attn, layer.mlp, layer.attention_type
    return Block(
        Attention(
            linear(inner.Wqkv),
            linear(inner.Wo),
            config.num_attention_heads,
            inner.head_dim,
            inner.head_dim**-0.5,
            window=config.sliding_window if kind == SLIDING else None,
            rotary=kind,
        ),
        FeedForward(linear(feed.Wi), linear(feed.Wo), activation(feed.act), gated=True),
        norm(layer.attn_norm),
        norm(layer.mlp_norm),
        pre_norm=True,
    )


def _vit(layer: Any, config: Any) -> Block:
    inner, feed = layer.attention, layer.mlp
    return Block(
        Attention(
            linear(inner.q_proj, inner.k_proj, inner.v_proj),
            linear(inner.o_proj),
            inner.num_attention_heads,
            inner.head_dim,
            inner.scaling,
        ),
        FeedForward(linear(feed.fc1), linear(feed.fc2), activation(feed.activation_fn)),
        norm(layer.layernorm_before),
        norm(layer.layernorm_after),
        pre_norm=True,
    )


def _one_block(layer: nn.Module) -> Iterator[nn.Module]:
    yield layer


def _albert_blocks(group: Any) -> Iterator[nn.Module]:
    yield from group.albert_layers


def _of_encoder(context: EncoderContext) -> Operands:
    return Operands(context.mask)


def _of_mpnet(context: MPNetContext) -> Operands:
    return Operands(context.mask, context.position_bias)


def _of_modernbert(context: ModernBertContext) -> Operands:
    assert context.tables is not None
    return Operands(context.mask, rotary=context.tables)


@dataclass(frozen=True)
class _Family:
    classes: tuple[str, ...]  # of its layers, in transformers
    block: Callable[[Any, Any], Block]  # of a block's module and the model's config
    split: Callable[[Any], Iterator[nn.Module]] = _one_block  # a layer into blocks
    operands: Callable[[Any], Operands] = _of_encoder


_FAMILIES: dict[type[Backbone], _Family] = {
    BertBackbone: _Family(("BertLayer",), _bert),
    RobertaBackbone: _Family(("RobertaLayer", "XLMRobertaLayer", "CamembertLayer"), _bert),
    ElectraBackbone: _Family(("ElectraLayer",), _bert),
    DistilBertBackbone: _Family(("TransformerBlock",), _distilbert),
    AlbertBackbone: _Family(("AlbertLayerGroup",), _albert, split=_albert_blocks),
    MPNetBackbone: _Family(("MPNetLayer",), _mpnet, operands=_of_mpnet),
    ModernBertBackbone: _Family(("ModernBertEncoderLayer",), _modernbert, operands=_of_modernbert),
    ViTBackbone: _Family(("ViTLayer", "DeiTLayer"), _vit),
}
