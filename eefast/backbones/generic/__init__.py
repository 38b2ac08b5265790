"""Any transformers model, without an adapter by hand."""

from eefast.backbones.generic.anatomy import Anatomy
from eefast.backbones.generic.backbone import GenericBackbone
from eefast.backbones.generic.study import study

__all__ = ["Anatomy", "GenericBackbone", "study"]
