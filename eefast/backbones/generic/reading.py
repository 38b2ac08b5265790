"""Where the vector of an exit lies: found from what the model itself does with its last layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from eefast.backbones.base import Inputs
from eefast.backbones.generic.anatomy import Anatomy
from eefast.backbones.generic.backbone import GenericBackbone


def is_causal(backbone: GenericBackbone, inputs: Inputs, states: list[Tensor]) -> bool:
    """Whether no token of a text knows of those after it: another last token shows it."""
    if "input_ids" not in inputs or states[-1].dim() != 3 or states[-1].shape[1] < 2:
        return False
    ids = inputs["input_ids"].clone()  # its first sample has no padding
    ids[0, -1] = ids[0, 0]
    hidden, context = backbone.start({**inputs, "input_ids": ids})
    for i in range(1, backbone.depth + 1):
        hidden = backbone.layer(i, hidden, context)
    return torch.equal(hidden[0, :-1], states[-1][0, :-1])


def readout_of(model: Any, anatomy: Anatomy, last: Tensor, output: Any, causal: bool) -> Anatomy:
    """`anatomy` with the final norm and the pooling.

    The norm is the module that makes the model's `last_hidden_state` out of `last`, what the last
    layer gave.
    """
    norm = ""
    target = getattr(output, "last_hidden_state", None)
    if isinstance(target, Tensor) and target.shape == last.shape and not _close(last, target):
        norm = next((p for p in _norms(model, anatomy) if _makes(model, p, last, target)), "")
    return dataclasses.replace(anatomy, norm=norm, pooling=_pooling(model, last, causal))


def readouts(model: Any, anatomy: Anatomy) -> Iterator[Anatomy]:
    """Other readouts that a family's own classifier may have, likeliest first."""
    norms = list(dict.fromkeys((anatomy.norm, "", *_norms(model, anatomy))))
    for pooling in dict.fromkeys((anatomy.pooling, "first", "mean", "patches", "last")):
        for norm in norms:
            yield dataclasses.replace(anatomy, pooling=pooling, norm=norm)
            if norm and pooling in ("mean", "patches"):
                yield dataclasses.replace(anatomy, pooling=pooling, norm=norm, norm_after=True)


def _pooling(model: Any, last: Tensor, causal: bool) -> str:
    config = model.config
    if model.main_input_name == "input_ids":
        summary = getattr(config, "classifier_pooling", None) or getattr(
            config, "summary_type", None
        )
        if causal or config.is_encoder_decoder or summary == "last":
            return "last"
        return "mean" if summary == "mean" else "first"
    if last.dim() == 3 and model.main_input_name == "pixel_values":
        marks = ("cls_token", "class_embedding", "class_token")
        if any(name.endswith(marks) for name, _ in model.named_parameters()):
            return "first"
    return "mean"


def _norms(model: nn.Module, anatomy: Anatomy) -> Iterator[str]:
    layers = tuple(f"{path}." for path in anatomy.calls)
    # The last ones first: new norms are all alike, and the one at the embeddings would do as well.
    for path, module in reversed(list(model.named_modules())):
        if "norm" in type(module).__name__.lower() and not f"{path}.".startswith(layers):
            yield path


def _makes(model: Any, path: str, last: Tensor, target: Tensor) -> bool:
    try:
        return _close(model.get_submodule(path)(last), target)
    except Exception:  # a norm of another shape
        return False


def _close(a: Tensor, b: Tensor) -> bool:
    tolerance = torch.finfo(b.dtype).eps ** 0.5 * float(b.abs().max())
    return a.shape == b.shape and bool((a - b).abs().max() <= tolerance)
