"""`EarlyExitOutput`: what a compiled model returns."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor

from eefast.ops import ExitState
from eefast.short_repr import ShortRepr


@dataclass(repr=False)
class EarlyExitOutput(ShortRepr):
    """Output of a compiled model, one entry per sample in the order given."""

    loss: Tensor | None = None  # scalar, if labels were given: the task loss of `logits`
    logits: Tensor | None = None  # (B, C) float32, of the sample's exit
    # (B,) int32: the class; of a model with one output (regression) its numbers, float32.
    prediction: Tensor | None = None
    exit_layer: Tensor | None = None  # (B,) int32, 1-based layer after which it exited
    score: Tensor | None = None  # (B,) float32, the policy's score when it exited

    @classmethod
    def of(cls, state: ExitState, loss: Tensor | None) -> EarlyExitOutput:
        """The output of a finished call.

        The same as the constructor's, without its calls of `__setattr__` and its search for
        mappings and lists: they cost 25 us with cold caches, as they are after a model has run.
        """
        regression = state.logits.shape[1] == 1
        output = cls.__new__(cls)
        values = {
            "loss": loss,
            "logits": state.logits,
            "prediction": state.logits[:, 0] if regression else state.prediction,
            "exit_layer": state.exit_layer,
            "score": state.score,
        }
        output.__dict__.update(values)
        put = OrderedDict.__setitem__
        for name, value in values.items():
            if value is not None:
                put(output, name, value)
        return output
