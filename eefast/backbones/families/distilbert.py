"""DistilBERT: BERT without token types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from eefast.backbones.families.encoder import EncoderBackbone
from eefast.backbones.registry import register_backbone


@register_backbone("distilbert")
class DistilBertBackbone(EncoderBackbone):
    """Around a `DistilBertModel`."""

    takes: Mapping[str, str] = {
        "input_ids": "BT",
        "attention_mask": "BT",
        "inputs_embeds": "BTE",
        "position_ids": "1T",
    }

    def _stack(self, model: Any) -> Mapping[str, nn.Module]:
        layers: Mapping[str, nn.Module] = model.transformer.layer._modules
        return layers
