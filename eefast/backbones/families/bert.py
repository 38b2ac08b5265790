"""BERT, and with it the many checkpoints of its kind (MiniLM among them)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from eefast.backbones.families.encoder import EncoderBackbone
from eefast.backbones.registry import register_backbone


@register_backbone("bert")
class BertBackbone(EncoderBackbone):
    """Around a `BertModel`."""

    def _stack(self, model: Any) -> Mapping[str, nn.Module]:
        layers: Mapping[str, nn.Module] = model.encoder.layer._modules
        return layers
