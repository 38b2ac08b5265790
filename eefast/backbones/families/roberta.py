"""RoBERTa: BERT whose positions start after the padding index and skip padding."""

from __future__ import annotations

from transformers import PreTrainedModel

from eefast.backbones.families.bert import BertBackbone
from eefast.backbones.registry import register_backbone


@register_backbone("roberta", "xlm-roberta", "camembert")
class RobertaBackbone(BertBackbone):
    """Around a `RobertaModel`, `XLMRobertaModel` or `CamembertModel`.

    Without `position_ids` its embeddings number the tokens that are not padding, judging by
    `input_ids`; with `inputs_embeds` they number all.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        # The rows of the position table up to the padding index belong to no token.
        rows = model.config.max_position_embeddings
        self.max_length = rows - (self.model.embeddings.padding_idx + 1)
