"""Policy, objective and calibration of a paper go by one name: from training to a saved model."""

import pytest
import torch

from eefast import MultiExitModel, calibrate, record_trace, simulate
from eefast.policies import BERxiT, policy_class
from eefast.traces import keepable
from eefast.training import needs_scores
from tests.models import inputs_for, losses_of_training, tiny_model
from tests.policies.examples import EXAMPLES


@pytest.mark.parametrize("name", ["beem", "eeic", "berxit", "mue"])
def test_trained_recorded_calibrated_and_saved(name, tmp_path):
    model = tiny_model(objective=name, head_dropout=0.0)
    inputs, labels = inputs_for(model, 24), torch.arange(24) % 3
    losses = losses_of_training(model, dict(inputs, labels=labels), 20)
    assert losses[-2] < losses[0]  # two steps of one kind, where they alternate

    keep = keepable(model)
    trace = record_trace(model, [{**inputs, "labels": labels}], keep=keep)
    policy = calibrate(name, trace)
    assert type(policy) is policy_class(name)
    model.set_policy(policy)
    model.save_pretrained(tmp_path)
    loaded = MultiExitModel.from_pretrained(tmp_path)
    assert loaded.get_policy(name) == policy
    again = record_trace(loaded, [{**inputs, "labels": labels}], keep=keep)
    assert torch.equal(simulate(policy, again).exit, simulate(policy, trace).exit)


def test_a_model_without_scorer_takes_no_policy_that_reads_scores():
    model = tiny_model()
    with pytest.raises(ValueError, match="'berxit' reads learned scores and got none") as refused:
        model.set_policy(BERxiT(0.5))
    for objective in filter(needs_scores, {policy.name for policy in EXAMPLES}):
        assert f"'{objective}'" in str(refused.value).partition("which objectives")[2]
    assert model.get_policy("berxit") is None
    tiny_model(scorer_row=True).set_policy(BERxiT(0.5))
