"""What Trainer's evaluation says of a multi-exit model: the accuracy of each exit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import EvalPrediction, PreTrainedModel


def exit_accuracies(model: PreTrainedModel) -> Callable[[EvalPrediction], dict[str, float]]:
    """A `compute_metrics` for Trainer that gives the accuracy of each exit of `model`.

        Trainer(model, arguments, ..., compute_metrics=eefast.training.exit_accuracies(model))

    Evaluation then reports `eval_exit_1_accuracy` and so on, and `eval_accuracy`, the last exit's.
    Trainer hands `compute_metrics` the last exit's logits only, as any classifier's; from here on
    it hands it `(logits, exit_logits)` for this model, [N, C] and L times [N, C]. (That is a
    setting of `model.config`, `keys_to_ignore_at_inference`; it is not saved.)

    Raises:
        TypeError: not a multi-exit model.
        ValueError: a regression model, which has no accuracy.
    """
    if not hasattr(model, "heads"):
        raise TypeError(f"model must be a MultiExitModel, got {type(model).__name__}")
    if model.config.num_labels == 1:
        raise ValueError("a regression model has no accuracy; give Trainer metrics of your own")
    keys = model.config.keys_to_ignore_at_inference
    model.config.keys_to_ignore_at_inference = [key for key in keys if key != "exit_logits"]

    def compute(evaluated: EvalPrediction) -> dict[str, float]:
        predictions: Any = evaluated.predictions
        _, exit_logits = predictions
        right = [(logits.argmax(-1) == evaluated.label_ids).mean() for logits in exit_logits]
        accuracies = {f"exit_{exit}_accuracy": float(r) for exit, r in enumerate(right, 1)}
        return {"accuracy": float(right[-1]), **accuracies}

    return compute
