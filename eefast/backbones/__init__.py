"""Backbones: transformers models driven layer by layer."""

from eefast.backbones import families  # which register themselves
from eefast.backbones.base import Backbone, Context, Inputs, embedded, gathered
from eefast.backbones.generic import Anatomy, GenericBackbone, study
from eefast.backbones.masks import attention_bias, hides_nothing
from eefast.backbones.registry import (
    backbone_for,
    base_model_of,
    has_adapter,
    register_backbone,
)

__all__ = [
    "Anatomy",
    "Backbone",
    "Context",
    "GenericBackbone",
    "Inputs",
    "attention_bias",
    "backbone_for",
    "base_model_of",
    "embedded",
    "families",
    "gathered",
    "has_adapter",
    "hides_nothing",
    "register_backbone",
    "study",
]
