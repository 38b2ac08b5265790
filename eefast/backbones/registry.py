"""Which adapter belongs to which family."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from transformers import PreTrainedModel

from eefast.backbones.base import Backbone

B = TypeVar("B", bound="type[Backbone]")
_BACKBONES: dict[str, Callable[[PreTrainedModel], Backbone]] = {}


def register_backbone(*model_types: str) -> Callable[[B], B]:
    """Make the decorated `Backbone` subclass the adapter of these `config.model_type`s.

    The last registration of a model type counts, so that a notebook cell can be run again.

    Raises:
        TypeError: no model type is named.
    """
    if not model_types or not all(isinstance(name, str) for name in model_types):
        raise TypeError(f"register_backbone: got {model_types}; wanted the names of model types")

    def register(cls: B) -> B:
        _BACKBONES.update(dict.fromkeys(model_types, cls))
        return cls

    return register


def base_model_of(model: PreTrainedModel) -> PreTrainedModel:
    """The base model inside a task model (BertForSequenceClassification -> BertModel), or itself.

    Raises:
        TypeError: not a transformers model. (Of a wrapped one, pass the model inside the wrapper.)
    """
    base = model.base_model if isinstance(model, PreTrainedModel) else None
    if not isinstance(base, PreTrainedModel):
        raise TypeError(f"model: got {type(model).__name__}; wanted a transformers PreTrainedModel")
    return base


def backbone_for(model: PreTrainedModel) -> Backbone:
    """The adapter around a base model, or around the base model of a task model.

    Raises:
        TypeError: not a transformers model.
        ValueError: a family without an adapter, or a decoder.
    """
    base = base_model_of(model)
    family = base.config.model_type
    if family not in _BACKBONES:
        raise ValueError(
            f"model: got model_type '{family}'; there are backbones for "
            f"{', '.join(sorted(_BACKBONES))}. To add one, write a subclass of "
            "eefast.backbones.Backbone with start and layer (and readout, where exits do not read "
            f"the first token) and decorate it with @register_backbone('{family}'); "
            "help(eefast.backbones.base) shows one"
        )
    return _BACKBONES[family](base)
