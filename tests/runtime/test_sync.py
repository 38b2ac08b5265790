"""The sync runtime: the direct runtime's answers, and one question per exit."""

import pytest
import torch

from eefast import compile
from eefast.policies import Budgeted, Confidence, Never
from tests.models import inputs_for, tiny_model
from tests.runtime.questions import Questions
from tests.runtime.test_direct import IMPLS, POLICIES, TOLERANCE


@pytest.fixture(scope="module", params=["linear", "pooler"])
def model(request):
    return tiny_model(head=request.param, cascade=request.param == "pooler")


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@pytest.mark.parametrize("samples", [1, 24])
def test_it_answers_as_the_direct_runtime(model, policy, impl, samples):
    inputs = inputs_for(model, samples, padded=True)
    wanted = compile(model, policy)(**inputs)
    out = compile(model, policy, runtime="sync", impl=impl)(**inputs)
    assert torch.equal(out.exit_layer, wanted.exit_layer)
    assert torch.equal(out.prediction, wanted.prediction)
    torch.testing.assert_close(out.logits, wanted.logits, **TOLERANCE)
    torch.testing.assert_close(out.score, wanted.score, **TOLERANCE)


@pytest.mark.parametrize(
    ("policy", "asked"),
    [(Confidence(0.0), 1), (Confidence(2.0), 4), (Never(), 1), (Budgeted(2), 1)],
    ids=repr,
)
def test_the_host_asks_once_per_exit_met(policy, asked):
    model = tiny_model()
    ids = inputs_for(model, 3)["input_ids"]  # without a mask, which is looked at too
    fast = compile(model, policy, runtime="sync")
    with Questions() as questions:
        fast(ids)
    assert questions.count == asked


def test_layers_behind_the_last_exit_needed_are_not_run(monkeypatch):
    model = tiny_model()
    ran, layer = [], model.layers.layer
    monkeypatch.setattr(model.layers, "layer", lambda i, *rest: ran.append(i) or layer(i, *rest))
    inputs = inputs_for(model, 3)
    compile(model, Confidence(0.0), runtime="sync")(**inputs)
    assert ran == [1]
    ran.clear()
    compile(model, Budgeted(3), runtime="sync")(**inputs)
    assert ran == [1, 2, 3]


def test_empty_batch():
    model = tiny_model()
    out = compile(model, Confidence(0.7), runtime="sync")(torch.empty(0, 7, dtype=torch.int64))
    assert out.logits.shape == (0, 3)
