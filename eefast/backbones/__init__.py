"""Backbones: one small adapter per transformers family, driven layer by layer."""

from eefast.backbones.albert import AlbertBackbone
from eefast.backbones.base import Backbone, LayerInputs, ModelInputs, without_idle_mask
from eefast.backbones.bert import BertBackbone
from eefast.backbones.distilbert import DistilBertBackbone
from eefast.backbones.electra import ElectraBackbone
from eefast.backbones.encoder import EncoderBackbone
from eefast.backbones.masks import attention_bias, hides_nothing
from eefast.backbones.mpnet import MPNetBackbone
from eefast.backbones.registry import backbone_for, base_model_of, register_backbone
from eefast.backbones.roberta import RobertaBackbone

__all__ = [
    "AlbertBackbone",
    "Backbone",
    "BertBackbone",
    "DistilBertBackbone",
    "ElectraBackbone",
    "EncoderBackbone",
    "LayerInputs",
    "MPNetBackbone",
    "ModelInputs",
    "RobertaBackbone",
    "attention_bias",
    "backbone_for",
    "base_model_of",
    "hides_nothing",
    "register_backbone",
    "without_idle_mask",
]
