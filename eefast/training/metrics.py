"""What Trainer's evaluation says of a multi-exit model: metrics of each exit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import EvalPrediction, PreTrainedModel

from eefast.traces.metrics import OF_NUMBERS, answers_of, measure

ComputeMetrics = Callable[[EvalPrediction], dict[str, float]]


def exit_accuracies(model: PreTrainedModel) -> ComputeMetrics:
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
    return _of_exits(model, ["accuracy"])


def exit_correlations(model: PreTrainedModel) -> ComputeMetrics:
    """As `exit_accuracies` for a model with one output (regression): Pearson and Spearman.

    Evaluation reports `eval_exit_1_pearson`, `eval_exit_1_spearman` and so on, and `eval_pearson`
    and `eval_spearman`, the last exit's.

    Raises:
        TypeError: not a multi-exit model.
        ValueError: a model with classes.
    """
    return _of_exits(model, OF_NUMBERS)


def _of_exits(model: PreTrainedModel, metrics: Sequence[str]) -> ComputeMetrics:
    if not hasattr(model, "heads"):
        raise TypeError(f"model must be a MultiExitModel, got {type(model).__name__}")
    classes = int(model.config.num_labels or 0)
    if (classes == 1) != (metrics is OF_NUMBERS):
        use = "exit_correlations" if classes == 1 else "exit_accuracies"
        of = "a regression model has no accuracy" if classes == 1 else f"got {classes} classes"
        raise ValueError(f"{of}: use eefast.training.{use}(model)")
    keys = model.config.keys_to_ignore_at_inference
    model.config.keys_to_ignore_at_inference = [key for key in keys if key != "exit_logits"]

    def compute(evaluated: EvalPrediction) -> dict[str, float]:
        predictions: Any = evaluated.predictions
        labels = torch.as_tensor(evaluated.label_ids).reshape(-1)
        found, last = {}, {}
        for exit, logits in enumerate(predictions[1], 1):
            answers = answers_of(torch.as_tensor(logits))
            last = {name: measure(name, labels, answers, classes) for name in metrics}
            found.update({f"exit_{exit}_{name}": value for name, value in last.items()})
        return {**last, **found}

    return compute
