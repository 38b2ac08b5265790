"""The head that a task model was trained with, as an exit's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from eefast.backbones import Anatomy, Backbone, Inputs, backbone_for, gathered
from eefast.backbones.generic.reading import readouts
from eefast.backbones.generic.signature import random_inputs
from eefast.backbones.generic.twin import apart
from eefast.heads import HeadKind

_CLASSIFIERS = ("SequenceClassification", "ImageClassification", "AudioClassification")
_OTHER_TASKS = ("For", "LMHead", "WithLMHead")


class TrainedHead(NamedTuple):
    """Modules of the task model: dense and tanh where there is a pooler, then the classifier."""

    pooler: nn.Linear | None
    classifier: nn.Linear

    def __call__(self, vectors: Tensor) -> Tensor:
        if self.pooler is not None:
            vectors = torch.tanh(self.pooler(vectors))
        logits: Tensor = self.classifier(vectors)
        return logits


def check_model(model: PreTrainedModel) -> None:
    """Raises ValueError for what cannot have exits, whatever its family.

    That is a task that is not the choice of one class or a number, and layers that round a sample
    by what is beside it in the batch.
    """
    name = type(model).__name__
    if getattr(model.config, "problem_type", None) == "multi_label_classification":
        raise ValueError("model: got a multi-label classifier; exits choose one class")
    other = any(mark in name for mark in _OTHER_TASKS)
    if other and not any(mark in name for mark in _CLASSIFIERS) and model.base_model is not model:
        raise ValueError(
            f"model: got a {name}, whose task has no exits yet; they are built for sequence, image "
            "and audio classification and for regression. For new heads pass its base model, "
            "model.base_model"
        )
    for path, module in model.named_modules():
        if type(module).__module__.startswith("torch.ao.nn.quantized.dynamic"):
            raise ValueError(
                f"model: {path} is a dynamically quantised {type(module).__name__}, whose scale "
                "depends on the whole batch, so that a sample that exits would change the others. "
                "Pass the model as it was before quantize_dynamic"
            )


def trained_head(
    model: PreTrainedModel,
    base: PreTrainedModel,
    anatomy: Anatomy | None,
    kind: HeadKind,
    readout: str | None = None,
) -> tuple[TrainedHead | None, Anatomy | None]:
    """The head of `kind` with which the last layer answers as `model`, and how it is read.

    Found by trying: of the linear layers outside the base model's layers, those of fitting shapes
    with which a random batch gets the logits that the task model gives. `anatomy` (None: the family
    has an adapter) comes back with the readout of the task's own head. (None, `anatomy`): there is
    no such head. With `readout` nothing else is tried.
    """
    if model is base:
        return None, anatomy
    mirror = apart(model).eval()
    inside = next(m for n, m in mirror.named_modules() if model.get_submodule(n) is base)
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices):
        inputs = random_inputs(inside, 3)
        logits = getattr(mirror(**inputs), "logits", None)
        if logits is None or logits.dim() != 2:
            return None, anatomy
        backbone = backbone_for(inside, anatomy, readout)
        hidden, context = backbone.start(inputs)
        for layer in range(1, backbone.depth + 1):
            hidden = backbone.layer(layer, hidden, context)
        tolerance = torch.finfo(logits.dtype).eps ** 0.5 * float(logits.abs().max())
        searched = anatomy if readout is None else None
        for tried in [anatomy] if searched is None else readouts(inside, searched):
            vectors = _vectors(backbone_for(inside, tried, readout), inputs, hidden)
            if vectors is None:
                continue
            for head in _candidates(model, base, kind, vectors.shape[-1], logits.shape[-1]):
                if bool((head(vectors) - logits).abs().max() <= tolerance):
                    return head, tried
    return None, anatomy


def _vectors(backbone: Backbone, inputs: Inputs, hidden: Tensor) -> Tensor | None:
    _, context = backbone.start(inputs)  # a context holds what its own readout needs
    try:
        return gathered(*backbone.readout(backbone.depth, hidden, context))
    except (RuntimeError, ValueError, IndexError, TypeError, AttributeError):
        return None  # a readout for hidden states of another shape


def _candidates(
    model: Any, base: Any, kind: HeadKind, width: int, classes: int
) -> Iterator[TrainedHead]:
    outside = [module for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    in_base = {id(m) for n, m in base.named_modules() if not n.startswith("pooler")}
    outside = [module for module in outside if id(module) not in in_base]
    for classifier in outside:
        if (classifier.in_features, classifier.out_features) != (width, classes):
            continue
        if kind == "linear":
            yield TrainedHead(None, classifier)
            continue
        for pooler in outside:
            if (pooler.in_features, pooler.out_features) == (width, width):
                yield TrainedHead(pooler, classifier)
