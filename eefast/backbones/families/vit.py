"""ViT and DeiT: patches of an image, none of which is padding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from eefast.backbones.base import Inputs
from eefast.backbones.families.encoder import EncoderBackbone, EncoderContext
from eefast.backbones.registry import register_backbone


@register_backbone("vit", "deit")
class ViTBackbone(EncoderBackbone):
    """Around a `ViTModel` or `DeiTModel`; exits read what the final norm makes of the first token.

    Images have the size of `config.image_size`. Any attention implementation will do.
    """

    takes: Mapping[str, str] = {"pixel_values": "BCHW"}
    main_inputs = ("pixel_values",)
    absent: Mapping[str, float] = {}

    def _stack(self, model: Any) -> Mapping[str, nn.Module]:
        layers: Mapping[str, nn.Module] = model.layers._modules
        return layers

    def start(self, inputs: Inputs) -> tuple[Tensor, EncoderContext]:
        """The hidden states [B, T, D] before layer 1; the context is empty."""
        embeddings = self.model.embeddings
        dtype = embeddings.patch_embeddings.projection.weight.dtype
        return embeddings(inputs["pixel_values"].to(dtype)), EncoderContext()

    def final_norm(self) -> nn.Module:
        norm: nn.Module = self.model.layernorm
        return norm
