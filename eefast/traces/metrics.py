"""Metrics of answers: accuracy, F1, Matthews, Pearson and Spearman.

A metric that the data leave undefined is NaN: any metric of no samples; F1 and Matthews correlation
where all labels are one class; Pearson and Spearman correlation of fewer than two samples, of
labels or answers that are all the same, and of numbers that are not finite.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
from torch import Tensor

OF_CLASSES = ("accuracy", "f1", "matthews")
"""Metrics of a classifier."""

OF_NUMBERS = ("pearson", "spearman")
"""Metrics of a model with one output (regression)."""


def measure(
    name: str,
    labels: Tensor,  # (N,) int64, or floats with one output
    predictions: Tensor,  # (N,) likewise
    num_classes: int,
) -> float:
    """A metric of N answers, the higher the better; NaN where it is undefined.

    Args:
        name: "accuracy": the share answered as labelled. "f1": that of class 1 of two classes,
            otherwise the mean over the classes that occur (macro); a class that is never answered
            has 0. "matthews": Matthews correlation; 0 where all answers are one class. "pearson",
            "spearman": correlation of labels and answers.
        labels: what the answers should be.
        predictions: the answers: classes, or with one output its numbers.
        num_classes: C; 1 for regression.

    Raises:
        ValueError: an unknown metric, or one of classes for numbers or of numbers for classes.
        ModuleNotFoundError: F1 and Matthews correlation need scikit-learn, Pearson and Spearman
            correlation SciPy: the extra `train`.
    """
    check_metric(name, num_classes)
    wanted, given = labels.cpu().numpy(), predictions.cpu().numpy()
    if not len(wanted):
        return math.nan
    if name == "accuracy":
        return float((wanted == given).mean())
    if name in OF_CLASSES:
        if (wanted == wanted[0]).all():
            return math.nan
        sklearn = _optional("sklearn.metrics", name, "scikit-learn")
        if name == "matthews":
            return float(sklearn.matthews_corrcoef(wanted, given))
        average = "binary" if num_classes == 2 else "macro"
        return float(sklearn.f1_score(wanted, given, average=average, zero_division=0.0))
    if any((x == x[0]).all() or not np.isfinite(x).all() for x in (wanted, given)):
        return math.nan
    stats = _optional("scipy.stats", name, "SciPy")
    correlation = stats.pearsonr if name == "pearson" else stats.spearmanr
    return float(correlation(wanted.astype(float), given.astype(float)).statistic)


def answers_of(
    logits: Tensor,  # (..., C)
) -> Tensor:
    """What logits answer: the class, (...) int64; with one output (C = 1) the number itself."""
    return logits[..., 0] if logits.shape[-1] == 1 else logits.argmax(-1)


def check_metric(name: str, num_classes: int) -> None:
    """Refuse what is no metric of a model with so many classes.

    Raises:
        ValueError: an unknown metric, or one of classes for numbers or of numbers for classes.
    """
    fitting = OF_NUMBERS if num_classes == 1 else OF_CLASSES
    if name in fitting:
        return
    of = "one output (regression)" if num_classes == 1 else f"{num_classes} classes"
    raise ValueError(f"metric must be one of {', '.join(fitting)} with {of}, got {name!r}")


def _optional(module: str, metric: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"metric {metric!r} needs {package}: install eefast with its extra [train]",
            name=error.name,
        ) from None
