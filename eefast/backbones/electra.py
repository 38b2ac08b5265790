"""ELECTRA: BERT whose embeddings may be narrower than its layers."""

from __future__ import annotations

from torch import Tensor
from transformers import PreTrainedModel

from eefast.backbones.bert import BertBackbone
from eefast.backbones.registry import register_backbone


@register_backbone("electra")
class ElectraBackbone(BertBackbone):
    """Around an `ElectraModel`; `inputs_embeds` are [B, T, config.embedding_size]."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        self._projects = hasattr(model, "embeddings_project")

    def _embed(
        self,
        input_ids: Tensor | None,
        token_type_ids: Tensor | None,
        position_ids: Tensor | None,
        inputs_embeds: Tensor | None,
    ) -> Tensor:
        hidden = super()._embed(input_ids, token_type_ids, position_ids, inputs_embeds)
        if self._projects:
            hidden = self.model.embeddings_project(hidden)
        return hidden
