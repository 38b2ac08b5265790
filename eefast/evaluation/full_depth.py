"""What early exit is compared with: the same model in transformers, without eefast."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from eefast.backbones import Inputs, gathered
from eefast.multi_exit import MultiExitModel


class FullDepth:
    """The base model's own forward, and after it the head of the last exit.

    That is what transformers' classifiers do, for any family. The head reads what the last layer
    gave; where the family has a norm after that layer, the norm is computed once by the model and
    once more for what the head reads.

    Args:
        model: in evaluation mode; nothing of it is changed.
        inputs: of any call, by which the last layer is found.
    """

    def __init__(self, model: MultiExitModel, inputs: Inputs) -> None:
        self._model = model
        self._last = _last_layer(model, inputs)
        # As eefast walks a model: a classifier has no use for a decoder's cache.
        takes = inspect.signature(model.backbone.forward).parameters
        self._settings = {"use_cache": False} if "use_cache" in takes else {}

    def prepared(self, inputs: Inputs) -> Callable[[], Tensor]:
        """The call that gives the logits [B, C] of `inputs`.

        What only eefast's readout asks for (which tokens count) is made before the call.
        """
        model, depth, exits = self._model, self._model.layers.depth, self._model.num_exits
        with torch.inference_mode():
            context = model.layers.start(inputs)[1]

        @torch.inference_mode()
        def call() -> Tensor:
            given: list[Any] = []
            hook = self._last.register_forward_hook(lambda _, __, output: given.append(output))
            try:
                model.backbone(**inputs, **self._settings)
            finally:
                hook.remove()
            hidden = given[-1] if isinstance(given[-1], Tensor) else given[-1][0]
            vectors = gathered(*model.layers.readout(depth, hidden, context))
            logits: Tensor = model.heads(exits, vectors)[0]
            return logits

        return call


@torch.inference_mode()
def _last_layer(model: MultiExitModel, inputs: Inputs) -> nn.Module:
    """The module that runs last in the last layer: its outermost, which holds the others."""
    layers = model.layers
    hidden, context = layers.start(inputs)
    for i in range(1, layers.depth):
        hidden = layers.layer(i, hidden, context)
    called: list[nn.Module] = []
    hook = register_module_forward_hook(lambda module, _, __: called.append(module))
    try:
        layers.layer(layers.depth, hidden, context)
    finally:
        hook.remove()
    return called[-1]
