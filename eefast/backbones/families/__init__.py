"""Adapters by hand, for families where they are faster than the generic way."""

from eefast.backbones.families.albert import AlbertBackbone
from eefast.backbones.families.bert import BertBackbone
from eefast.backbones.families.deberta_v2 import DebertaV2Backbone
from eefast.backbones.families.distilbert import DistilBertBackbone
from eefast.backbones.families.electra import ElectraBackbone
from eefast.backbones.families.encoder import EncoderBackbone, EncoderContext
from eefast.backbones.families.modernbert import ModernBertBackbone
from eefast.backbones.families.mpnet import MPNetBackbone
from eefast.backbones.families.roberta import RobertaBackbone
from eefast.backbones.families.vit import ViTBackbone

__all__ = [
    "AlbertBackbone",
    "BertBackbone",
    "DebertaV2Backbone",
    "DistilBertBackbone",
    "ElectraBackbone",
    "EncoderBackbone",
    "EncoderContext",
    "MPNetBackbone",
    "ModernBertBackbone",
    "RobertaBackbone",
    "ViTBackbone",
]
