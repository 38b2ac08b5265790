"""DeBERTa-v2 and v3: relative positions in every layer, and in some a convolution in the first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from eefast.backbones.base import Context, Inputs
from eefast.backbones.families.bert import BertBackbone
from eefast.backbones.registry import register_backbone


@dataclass(frozen=True, slots=True)
class DebertaV2Context(Context):
    """The same for all layers; what has one row for all samples stays when rows are selected."""

    shown: Tensor  # (B or 1, T): 1 or 0
    mask: Tensor  # (B or 1, 1, T, T): 1 where a token sees another, else 0
    positions: Tensor | None  # (1, T, T) buckets; None: the model knows no relative positions
    embeddings: Tensor | None  # (2 buckets, D)

    def select(self, rows: Tensor) -> DebertaV2Context:
        if len(self.shown) == 1:
            return self
        shown, mask = (tensor.index_select(0, rows) for tensor in (self.shown, self.mask))
        return DebertaV2Context(shown, mask, self.positions, self.embeddings)


@register_backbone("deberta-v2")
class DebertaV2Backbone(BertBackbone):
    """Around a `DebertaV2Model`, whose layers know one attention implementation."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        encoder: Any = self.model.encoder
        self._scale = 0.0  # of the logarithm of a distance; 0: distances are not in buckets
        if encoder.relative_attention and encoder.position_buckets > 0:
            largest = (encoder.max_relative_positions - 1) / (encoder.position_buckets // 2)
            self._scale = torch.tensor(largest, dtype=torch.float32, device="cpu").log().item()

    def start(self, inputs: Inputs) -> tuple[Tensor, Any]:
        """The hidden states [B, T, D] before layer 1, and the context."""
        embedded = dict(inputs)
        shown = embedded.pop("attention_mask", None)
        if shown is not None:
            shown = (shown != 0).long()
        hidden: Tensor = self.model.embeddings(**embedded, mask=shown)
        if shown is None:
            shown = hidden.new_ones((1, hidden.shape[1]))
        encoder = self.model.encoder
        return hidden, DebertaV2Context(
            shown,
            encoder.get_attention_mask(shown),
            self._buckets(hidden) if encoder.relative_attention else None,
            encoder.get_rel_embedding(),
        )

    def layer(self, index: int, hidden: Tensor, context: Any) -> Tensor:
        """The hidden states [B, T, D] after layer `index`, given those before it."""
        after = super().layer(index, hidden, context)
        convolution = self.model.encoder.conv
        if index == 1 and convolution is not None and len(hidden):
            after = convolution(hidden, after, context.shown)
        return after

    def _run(self, module: nn.Module, hidden: Tensor, context: Any) -> Tensor:
        relative = (context.positions, context.embeddings)
        after: Tensor = module(hidden, context.mask, None, *relative)[0]
        return after

    def _buckets(self, hidden: Tensor) -> Tensor:
        """The relative positions [1, T, T]: distances, those that are far in logarithmic buckets.

        As the model's own `get_rel_pos`, which copies two numbers from the host at each call.
        """
        places = torch.arange(hidden.shape[1], device=hidden.device)
        distance = places[:, None] - places
        if self._scale == 0:
            return distance[None]
        near = self.model.encoder.position_buckets // 2
        far = distance.abs()
        logarithm = torch.log(far.clamp_min(near - 1) / near) / self._scale
        bucket = torch.ceil(logarithm * (near - 1)) + near
        return torch.where(far <= near, distance, (bucket * distance.sign()).long())[None]
