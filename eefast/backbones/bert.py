"""BERT, and with it the many checkpoints of its kind (MiniLM among them)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from eefast.backbones.encoder import EncoderBackbone
from eefast.backbones.registry import register_backbone


@register_backbone("bert")
class BertBackbone(EncoderBackbone):
    """Around a `BertModel`."""

    def _stack(self) -> Mapping[str, nn.Module]:
        layers: Mapping[str, nn.Module] = self.model.encoder.layer._modules
        return layers
