"""DistilBERT: BERT without token types."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from eefast.backbones.encoder import EncoderBackbone
from eefast.backbones.registry import register_backbone


@register_backbone("distilbert")
class DistilBertBackbone(EncoderBackbone):
    """Around a `DistilBertModel`."""

    takes = frozenset({"position_ids"})

    def _stack(self) -> Mapping[str, nn.Module]:
        layers: Mapping[str, nn.Module] = self.model.transformer.layer._modules
        return layers

    def _embed(
        self,
        input_ids: Tensor | None,
        token_type_ids: Tensor | None,
        position_ids: Tensor | None,
        inputs_embeds: Tensor | None,
    ) -> Tensor:
        hidden: Tensor = self.model.embeddings(
            input_ids=input_ids, position_ids=position_ids, inputs_embeds=inputs_embeds
        )
        return hidden
