"""Metrics: by hand, what is undefined, and what is missing."""

import math
import sys

import pytest
import torch

from eefast import ExitTrace, simulate
from eefast.policies import Never
from eefast.traces.metrics import measure

LABELS = [0, 0, 0, 1, 1, 2]
ANSWERS = [0, 0, 1, 1, 0, 1]
NUMBERS = [1.0, 2.0, 3.0, 5.0]


@pytest.mark.parametrize(
    ("name", "labels", "answers", "classes", "wanted"),
    [
        ("accuracy", LABELS, ANSWERS, 3, 3 / 6),
        # Precision and recall of the classes: 2/3 and 2/3, 1/3 and 1/2, none of class 2.
        ("f1", LABELS, ANSWERS, 3, (2 / 3 + 2 / 5 + 0) / 3),
        ("f1", [0, 1, 1, 1], [0, 0, 1, 0], 2, 2 * 1 / (2 * 1 + 0 + 2)),  # of class 1
        ("f1", [0, 1, 1, 1], [0, 0, 1, 0], 3, (2 / 4 + 2 / 4) / 2),
        ("matthews", [0, 0, 1, 1, 1], [0, 1, 1, 1, 0], 2, (2 - 1) / math.sqrt(3 * 3 * 2 * 2)),
        ("matthews", [0, 1], [1, 1], 2, 0),
        ("pearson", NUMBERS, [2.0, 4.0, 6.0, 10.0], 1, 1),
        ("pearson", [0.0, 1.0, 2.0], [0.0, 2.0, 1.0], 1, 0.5),
        ("spearman", NUMBERS, [-1.0, -10.0, -11.0, -90.0], 1, -1),
        ("accuracy", [], [], 2, math.nan),
        ("pearson", [], [], 1, math.nan),
        ("f1", [1, 1], [0, 1], 2, math.nan),
        ("matthews", [1, 1], [0, 1], 2, math.nan),
        ("pearson", [1.0], [2.0], 1, math.nan),
        ("spearman", [1.0, 2.0], [3.0, 3.0], 1, math.nan),
        ("pearson", [3.0, 3.0], [1.0, 2.0], 1, math.nan),
        ("pearson", [1.0, 2.0], [math.nan, 2.0], 1, math.nan),
        ("spearman", [1.0, 2.0], [math.inf, 2.0], 1, math.nan),
    ],
)
def test_by_hand(name, labels, answers, classes, wanted):
    got = measure(name, torch.tensor(labels), torch.tensor(answers), classes)
    assert got == pytest.approx(wanted, nan_ok=True)


def test_of_a_trace_and_of_a_policy_on_it():
    logits = torch.nn.functional.one_hot(torch.tensor([[1] * 6, ANSWERS]), 3).float()
    trace = ExitTrace(logits, torch.tensor(LABELS))
    for name in ("accuracy", "f1", "matthews"):
        of_exits = trace.metric(name)
        assert simulate(Never(), trace).metric(name) == of_exits[1] != of_exits[0]
    assert of_exits.dtype is torch.float64


@pytest.mark.parametrize(
    ("name", "classes", "message"),
    [
        ("F1", 2, "metric must be one of accuracy, f1, matthews with 2 classes, got 'F1'"),
        ("pearson", 3, "metric must be one of accuracy, f1, matthews with 3 classes, got"),
        ("accuracy", 1, r"must be one of pearson, spearman with one output \(regression\), got"),
    ],
)
def test_a_metric_of_another_task_is_refused(name, classes, message):
    with pytest.raises(ValueError, match=message):
        measure(name, torch.zeros(2), torch.zeros(2), classes)


@pytest.mark.parametrize(
    ("name", "classes", "module", "package"),
    [("f1", 2, "sklearn.metrics", "scikit-learn"), ("spearman", 1, "scipy.stats", "SciPy")],
)
def test_a_missing_package_is_named(monkeypatch, name, classes, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=rf"'{name}' needs {package}: .*\[train\]"):
        measure(name, torch.tensor([0, 1]), torch.tensor([0, 1]), classes)
