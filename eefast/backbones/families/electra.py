"""ELECTRA: BERT whose embeddings may be narrower than its layers."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from transformers import PreTrainedModel

from eefast.backbones.families.bert import BertBackbone
from eefast.backbones.registry import register_backbone


@register_backbone("electra")
class ElectraBackbone(BertBackbone):
    """Around an `ElectraModel`; `inputs_embeds` are [B, T, config.embedding_size]."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        self._projects = hasattr(model, "embeddings_project")

    def _embed(self, inputs: Mapping[str, Tensor | None]) -> Tensor:
        hidden = super()._embed(inputs)
        if self._projects:
            hidden = self.model.embeddings_project(hidden)
        return hidden
