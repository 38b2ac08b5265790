"""ALBERT: layers that share their weights, on narrow embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from eefast.backbones.families.encoder import EncoderBackbone
from eefast.backbones.registry import register_backbone


@register_backbone("albert")
class AlbertBackbone(EncoderBackbone):
    """Around an `AlbertModel`; `inputs_embeds` are [B, T, config.embedding_size].

    A layer is one step of the model's loop over `config.num_hidden_layers`: one application of a
    layer group, with all `config.inner_group_num` blocks in it. The `config.num_hidden_groups`
    groups divide the steps among them. (transformers' `output_hidden_states` counts blocks: layer i
    is its entry i * inner_group_num.)
    """

    def _stack(self, model: Any) -> Mapping[str, nn.Module]:
        groups = model.encoder.albert_layer_groups
        steps: int = model.config.num_hidden_layers
        # As the model's loop has it, rounding included.
        per_group = steps / model.config.num_hidden_groups
        return {str(step): groups[int(step / per_group)] for step in range(steps)}

    def _embed(self, inputs: Mapping[str, Tensor | None]) -> Tensor:
        hidden: Tensor = self.model.encoder.embedding_hidden_mapping_in(super()._embed(inputs))
        return hidden
