"""Labels: refused before a model runs, by the model, the compiled model and the recording."""

import pytest
import torch

from eefast import compile, record_trace
from eefast.labels import check_labels
from eefast.policies import Never
from tests.models import inputs_for, tiny_model

BAD = [
    ([0, 1], TypeError, "labels must be a tensor, got list"),
    (torch.tensor([0]), ValueError, r"labels must be \[2\], got \[1\]"),
    (torch.tensor([[0], [1]]), ValueError, r"labels must be \[2\], got \[2, 1\]"),
    (torch.tensor([0.0, 1.0]), ValueError, r"labels must be integers in .*got torch\.float32"),
    (torch.tensor([True, False]), ValueError, r"labels must be integers in .*got torch\.bool"),
    (torch.tensor([0j, 1j]), ValueError, r"labels must be integers in .*got torch\.complex64"),
    (torch.tensor([0, 3]), ValueError, r"labels must be in \[0, 3\), got 0\.\.3"),
]


@pytest.mark.parametrize(("labels", "error", "words"), BAD)
def test_labels_are_refused_before_the_model_runs(labels, error, words, monkeypatch):
    model, inputs = tiny_model(), inputs_for(tiny_model(), 2)
    fast = compile(model, Never())
    monkeypatch.setattr(model.layers, "start", lambda *_: pytest.fail("the model was run"))
    for run in (model, fast, lambda **batch: record_trace(model, [batch])):
        with pytest.raises(error, match=words):
            run(**inputs, labels=labels)


def test_any_integers_are_class_numbers():
    model, inputs = tiny_model(), inputs_for(tiny_model(), 2)
    wanted = model(**inputs, labels=torch.tensor([0, 2])).loss
    assert torch.equal(model(**inputs, labels=torch.tensor([0, 2], dtype=torch.int32)).loss, wanted)


def test_labels_of_a_regression_are_numbers():
    for labels in (torch.tensor([0.5, 2.0]), torch.tensor([[0.5], [2.0]]), torch.tensor([1, -3])):
        check_labels(labels, 1, 2)
    with pytest.raises(ValueError, match=r"labels must be \[2\], got \[3\]"):
        check_labels(torch.zeros(3), 1, 2)
    with pytest.raises(ValueError, match=r"labels must be numbers, got torch\.bool"):
        check_labels(torch.tensor([True, False]), 1, 2)
