"""What every policy of the package can do: be described, saved, defaulted, calibrated and run."""

import json
from dataclasses import replace

import pytest
import torch

from eefast import MultiExitModel, calibrate, compile, record_trace, simulate
from eefast.ops import Accumulate
from eefast.policies import policy_from_dict
from eefast.policies.registry import _REGISTRY
from tests.models import inputs_for, tiny_model
from tests.policies.examples import EXAMPLES
from tests.traces.made import learned_trace

ELSEWHERE = {"eenet", "jei-dnn"}
"""They hold networks, and have tests of their own."""
OURS = {
    name: cls
    for name, cls in _REGISTRY.items()
    if cls.__module__.startswith("eefast.") and name not in ELSEWHERE
}
ids = dict(ids=lambda x: repr(x).replace("num_exits=None, num_classes=None, expected=None, ", ""))


def assert_same(one, other):
    assert type(one) is type(other)
    assert one.to_dict() == other.to_dict()
    assert one.tensors().keys() == other.tensors().keys()
    for key, tensor in one.tensors().items():
        assert torch.equal(tensor, other.tensors()[key])


def test_every_policy_has_an_example():
    assert {policy.name for policy in EXAMPLES} == OURS.keys()


@pytest.mark.parametrize("policy", EXAMPLES, **ids)
def test_it_goes_through_json_and_back(policy):
    described = json.loads(json.dumps(policy.to_dict(), allow_nan=False))
    assert_same(policy_from_dict(described, policy.tensors()), policy)


def test_all_go_through_a_saved_model(tmp_path):
    model = tiny_model(scorer_row=True)
    last = {p.name: p for p in EXAMPLES if p.name != "mue"}  # a model holds one of each name
    for policy in last.values():
        model.set_policy(policy)
    model.save_pretrained(tmp_path)
    loaded = MultiExitModel.from_pretrained(tmp_path)
    for name, policy in last.items():
        assert_same(loaded.get_policy(name), policy)


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("exits", [1, 2, 12])
def test_defaults_fit_any_number_of_exits(name, exits):
    policy = replace(OURS[name].default(exits), num_classes=2)
    assert policy.table(exits).shape == (exits, 3)
    policy.check(exits, 2)


@pytest.fixture(scope="module")
def recorded():
    """A model, inputs, and the trace of them: each policy leaves at several exits."""
    model = tiny_model(scorer_row=True)
    with torch.no_grad():
        model.heads.scorer.weight.normal_(0, 0.3)
    inputs = inputs_for(model, 32)
    trace = record_trace(model, [{**inputs, "labels": torch.arange(32) % 3}], keep=["scores"])
    return model, inputs, trace


@pytest.mark.parametrize("impl", ["reference", "cpp"])
@pytest.mark.parametrize("policy", [p for p in EXAMPLES if p.name != "mue"], **ids)
def test_a_compiled_model_does_what_is_simulated(recorded, policy, impl):
    model, inputs, trace = recorded
    wanted = simulate(policy, trace)
    out = compile(model, policy, impl=impl)(**inputs)
    assert torch.equal(out.exit_layer, wanted.exit_layer)
    assert torch.equal(out.prediction, wanted.prediction)
    torch.testing.assert_close(out.score, wanted.score, atol=1e-4, rtol=1e-4)
    assert torch.equal(out.logits.argmax(-1), out.prediction)
    if policy.accumulate is Accumulate.NONE:
        own = trace.logits[wanted.exit - 1, torch.arange(32)]
        torch.testing.assert_close(out.logits, own, atol=1e-4, rtol=1e-4)
    if policy.reads_signals:
        assert len(wanted.exit.unique()) > 1


@pytest.mark.parametrize("name", sorted(OURS.keys() - {"never", "mue"}))
@pytest.mark.parametrize("exits", [1, 3])
def test_it_is_calibrated_by_name(name, exits):
    trace = learned_trace(exits=exits, samples=50)
    policy = calibrate(name, trace)
    assert type(policy) is OURS[name]
    assert (policy.num_exits, policy.num_classes) == (exits, 3)
    assert policy.expected.accuracy == simulate(policy, trace).accuracy
