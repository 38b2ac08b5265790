"""Which adapter belongs to which family."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from transformers import PreTrainedModel

from eefast.backbones.base import Backbone
from eefast.backbones.generic import Anatomy, GenericBackbone, study

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
        merge = "; call its merge_and_unload() first" if hasattr(model, "merge_and_unload") else ""
        raise TypeError(
            f"model: got {type(model).__name__}; wanted a transformers PreTrainedModel{merge}"
        )
    if base is model and type(model).__name__.endswith("Classification"):
        # CLIP's and Whisper's hold the half that they need, under a name of its own.
        inside = [child for child in model.children() if isinstance(child, PreTrainedModel)]
        if len(inside) == 1:
            return inside[0]
    return base


def has_adapter(model: PreTrainedModel) -> bool:
    """Whether an adapter is registered for the family, so that nothing has to be studied."""
    return base_model_of(model).config.model_type in _BACKBONES


def backbone_for(
    model: PreTrainedModel, anatomy: Anatomy | None = None, readout: str | None = None
) -> Backbone:
    """The backbone around a base model, or around the base model of a task model.

    That is the family's adapter where there is one, else the generic one.

    Args:
        model: a transformers model.
        anatomy: what `study` found of a model of this config; None: it is studied now.
        readout: what exits read, see `Backbone.choose_readout`; None: what the family's own
            classifier reads.

    Raises:
        TypeError: not a transformers model.
        ValueError: an adapter that does not take decoders, a model that cannot be walked, or a
            readout that the family does not have.
    """
    base = base_model_of(model)
    if has_adapter(base):
        backbone = _BACKBONES[base.config.model_type](base)
    else:
        backbone = GenericBackbone(base, study(base) if anatomy is None else anatomy)
    if readout is not None:
        backbone.choose_readout(readout)
    return backbone
