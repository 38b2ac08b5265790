"""ALBERT: layers that share their weights, on narrow embeddings."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from eefast.backbones.encoder import EncoderBackbone
from eefast.backbones.registry import register_backbone


@register_backbone("albert")
class AlbertBackbone(EncoderBackbone):
    """Around an `AlbertModel`; `inputs_embeds` are [B, T, config.embedding_size].

    A layer is one step of the model's loop over `config.num_hidden_layers`: one application of a
    layer group, with all `config.inner_group_num` blocks in it. The `config.num_hidden_groups`
    groups divide the steps among them. (transformers' `output_hidden_states` counts blocks: layer i
    is its entry i * inner_group_num.)
    """

    def _stack(self) -> Mapping[str, nn.Module]:
        groups = self.model.encoder.albert_layer_groups
        steps: int = self.model.config.num_hidden_layers
        # As the model's loop has it, rounding included.
        per_group = steps / self.model.config.num_hidden_groups
        return {str(step): groups[int(step / per_group)] for step in range(steps)}

    def _embed(
        self,
        input_ids: Tensor | None,
        token_type_ids: Tensor | None,
        position_ids: Tensor | None,
        inputs_embeds: Tensor | None,
    ) -> Tensor:
        embedded = super()._embed(input_ids, token_type_ids, position_ids, inputs_embeds)
        hidden: Tensor = self.model.encoder.embedding_hidden_mapping_in(embedded)
        return hidden
