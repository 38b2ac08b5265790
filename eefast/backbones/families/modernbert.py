"""ModernBERT: rotary positions, and layers that see a window of tokens among those that see all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from eefast.backbones.base import Inputs
from eefast.backbones.families.encoder import EncoderBackbone, EncoderContext, selected
from eefast.backbones.masks import window_bias
from eefast.backbones.registry import register_backbone

FULL, SLIDING = "full_attention", "sliding_attention"


@dataclass(frozen=True, slots=True)
class ModernBertContext(EncoderContext):
    """By the type of a layer; what has one row for all samples stays when rows are selected."""

    sliding: Tensor | None = None  # (B or 1, 1, T, T), or `mask` where the window hides nothing
    tables: Mapping[str, tuple[Tensor, Tensor]] | None = None  # cosines, sines: (B or 1, T, E)

    def select(self, rows: Tensor) -> ModernBertContext:
        def of_rows(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else selected(tensor, rows)

        mask = of_rows(self.mask)
        sliding = mask if self.sliding is self.mask else of_rows(self.sliding)
        assert self.tables is not None
        tables = {
            kind: (selected(cos, rows), selected(sin, rows))
            for kind, (cos, sin) in self.tables.items()
        }
        return ModernBertContext(mask, of_rows(self.shown), sliding, tables)


@register_backbone("modernbert")
class ModernBertBackbone(EncoderBackbone):
    """Around a `ModernBertModel`.

    Exits read what the final norm makes of the first token or, if `config.classifier_pooling` is
    "mean", of the mean over the tokens.
    """

    takes: Mapping[str, str] = {
        "input_ids": "BT",
        "attention_mask": "BT",
        "position_ids": "1T",
        "inputs_embeds": "BTE",
    }
    absent: Mapping[str, float] = {"attention_mask": 1}

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        self._types = dict.fromkeys(model.config.layer_types)
        self._chosen_readout = "mean" if model.config.classifier_pooling == "mean" else "first"

    def _stack(self, model: Any) -> Mapping[str, nn.Module]:
        layers: Mapping[str, nn.Module] = model.layers._modules
        return layers

    def _embed(self, inputs: Mapping[str, Tensor | None]) -> Tensor:
        hidden: Tensor = self.model.embeddings(inputs["input_ids"], inputs.get("inputs_embeds"))
        return hidden

    def context(
        self, hidden: Tensor, tokens: int, mask: Tensor | None, inputs: Inputs
    ) -> ModernBertContext:
        common = super().context(hidden, tokens, mask, inputs)
        full = common.mask
        config = self.model.config
        sliding = full
        if SLIDING in self._types and tokens >= config.sliding_window:  # else it hides nothing
            window, attention = config.sliding_window, config._attn_implementation
            sliding = window_bias(full, hidden, tokens, window, attention)
        positions = inputs.get("position_ids")
        if positions is None:
            positions = torch.arange(tokens, device=hidden.device)[None]
        rotary = self.model.rotary_emb
        tables = {kind: rotary(hidden, positions, kind) for kind in self._types}
        return ModernBertContext(full, common.shown, sliding, tables)

    def _run(self, module: nn.Module, hidden: Tensor, context: Any) -> Tensor:
        kind: Any = module.attention_type
        mask = context.mask if kind == FULL else context.sliding
        after: Tensor = module(hidden, mask, context.tables[kind])
        return after

    def final_norm(self) -> nn.Module:
        norm: nn.Module = self.model.final_norm
        return norm
