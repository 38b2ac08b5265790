"""Embeddings of tokens, looked up, summed and normed by one op (csrc/cpu/layers/embed_ops.cpp)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from eefast.backbones import Backbone, Inputs
from eefast.backbones.families import (
    BertBackbone,
    DistilBertBackbone,
    ElectraBackbone,
    ModernBertBackbone,
    MPNetBackbone,
    RobertaBackbone,
)
from eefast.lowering.modules import CannotLowerError, check_module

# By the exact class of a backbone, the classes that its `embeddings` may have in transformers.
_CLASSES: dict[type[Backbone], tuple[str, ...]] = {
    BertBackbone: ("BertEmbeddings",),
    RobertaBackbone: ("RobertaEmbeddings", "XLMRobertaEmbeddings", "CamembertEmbeddings"),
    ElectraBackbone: ("ElectraEmbeddings",),
    DistilBertBackbone: ("Embeddings",),
    MPNetBackbone: ("MPNetEmbeddings",),
    ModernBertBackbone: ("ModernBertEmbeddings",),
}


# What the buffers hold unless they were changed, beside what they hold.
_USUAL: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "token_type_ids": lambda ids: (ids, torch.zeros_like(ids)),
    "position_ids": lambda ids: (ids, torch.arange(ids.shape[-1])[None]),
}


class TokenEmbeddings:
    """norm(tokens[id] + types[type] + places[place]), from tables that stay the model's own.

    What is written into the tables is seen; other parameters in their place are not. A token's
    place is its number in the text, from 0, or as RoBERTa has it: from its padding id on, without
    padding. Types that are not given are 0.

    Raises:
        CannotLowerError: `module` computes something else.
    """

    def __init__(self, module: Any, classes: tuple[str, ...], width: int) -> None:
        check_module(module, classes, also=(nn.Embedding,))
        for buffer, usual in _USUAL.items():
            if hasattr(module, buffer) and not torch.equal(*usual(getattr(module, buffer))):
                raise CannotLowerError(f"its {buffer} are not the usual ones")
        parts = dict(module.named_children())
        norm = parts.get("LayerNorm", parts.get("norm"))
        if type(norm) is not nn.LayerNorm or norm.weight is None:
            raise CannotLowerError(f"its norm is {norm}")
        tokens = parts.get("word_embeddings", parts.get("tok_embeddings"))
        others = (parts.get(name) for name in ("token_type_embeddings", "position_embeddings"))
        self._tables = [
            _rows(tokens, width),
            *(None if table is None else _rows(table, width) for table in others),
        ]
        self._norm = norm.weight, torch.zeros(width) if norm.bias is None else norm.bias, norm.eps
        self._padding = getattr(module, "padding_idx", -1)

    def __call__(self, inputs: Inputs, *, ragged: bool) -> tuple[Tensor, Tensor, bool]:
        """The hidden states [R, D] float32 before layer 1, one text behind the other.

        Also how many tokens of each text they are of, [B] int64, and whether the mask has a zero at
        one of those.

        Args:
            ragged: of each text, only the tokens up to the last that the mask shows; all of a text
                without any. Else R is B T.
            inputs: `input_ids` [B, T], and `token_type_ids` and `position_ids`, [B or 1, T], where
                the model has tables for them; int64 or int32. `attention_mask` [B, T] or none.

        Raises:
            RuntimeError: ids that a table does not have.
        """
        embedded: tuple[Tensor, Tensor, bool] = torch.ops.eefast.embed_tokens.default(
            inputs["input_ids"],
            inputs.get("token_type_ids"),
            # ModernBERT's are for the rotation of its layers.
            inputs.get("position_ids") if self._tables[2] is not None else None,
            inputs.get("attention_mask"),
            *self._tables,
            *self._norm,
            self._padding,
            ragged,
        )
        return embedded


def _rows(table: nn.Module | None, width: int) -> Tensor:
    if type(table) is not nn.Embedding or table.max_norm is not None:
        raise CannotLowerError(f"a table is {table}")
    if table.embedding_dim != width:
        raise CannotLowerError(f"a table is {table.embedding_dim} wide; wanted {width}")
    return table.weight


def embeddings_of(backbone: Any) -> TokenEmbeddings | None:
    """Of a backbone whose embeddings one op computes; None: they are computed as before."""
    classes = _CLASSES.get(type(backbone))
    model, width = backbone.model, backbone.widths[0]
    if classes is None or hasattr(model, "embeddings_project") or model.dtype != torch.float32:
        return None
    try:
        return TokenEmbeddings(model.embeddings, classes, width)
    except (CannotLowerError, AttributeError):  # the latter of another version of transformers
        return None
