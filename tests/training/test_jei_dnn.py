"""JEI-DNN's objective: the expected loss by hand, its stages, and its gates afterwards."""

import math

import pytest
import torch

from eefast import MultiExitModel, MultiExitOutput, calibrate, record_trace, simulate
from eefast.training import Exits, objective, stages
from eefast.training.jei_dnn import RATE
from tests.models import inputs_for, losses_of_training, tiny_model
from tests.ops.oracle import signals_of

LABELS = torch.tensor([0, 1])
LOGITS = torch.tensor(
    [[[2.0, 0.0], [1.0, 0.0]], [[3.0, 0.0], [0.0, 1.0]], [[0.5, 0.0], [0.0, 4.0]]]
)


def test_the_expected_loss_by_hand():
    exits = Exits((1, 2, 4), (1.0, 2.0, 3.0, 2.0), 2)  # leaving costs 1/8, 3/8 and all
    loss = objective("jei-dnn", exits, cost_weight=0.6)
    gates = [[1.0, 2.0, -1.5], [0.5, -1.0, 0.25]]
    with torch.no_grad():
        loss.raw.copy_(torch.tensor(gates) / RATE)
    torch.testing.assert_close(loss.gates, torch.tensor(gates))
    wanted = 0.0
    for n, y in enumerate(LABELS.tolist()):
        left = 1.0
        for i, cost in enumerate([1 / 8, 3 / 8, 1.0]):
            row = LOGITS[i, n].tolist()
            _, c, h = signals_of(row)
            g = 1.0
            if i < 2:
                a, b, bias = gates[i]
                g = 1 / (1 + math.exp(-(a * c + b * (1 - h) + bias)))
            ce = -math.log(math.exp(row[y]) / sum(map(math.exp, row)))
            wanted += left * g * (ce + 0.6 * cost) / 2
            left *= 1 - g
    got = loss(MultiExitOutput(exit_logits=tuple(LOGITS)), LABELS)
    assert got.item() == pytest.approx(wanted, rel=1e-5)


def test_in_the_warm_up_all_exits_learn_alike_and_no_gate_does():
    loss = objective("jei-dnn", Exits((1, 2, 3), (1, 1, 1), 2), warmup=0.5)
    output = MultiExitOutput(exit_logits=tuple(LOGITS))
    loss.progress = 0.4
    loss(output, LABELS).backward()
    assert loss.raw.grad.abs().max() == 0
    mean = sum(torch.nn.functional.cross_entropy(z, LABELS) for z in LOGITS) / 3
    assert loss(output, LABELS).item() == pytest.approx(mean.item())
    for progress in (0.5, None):
        loss.progress = progress
        loss(output, LABELS).backward()
        assert loss.raw.grad.abs().max() > 0
        loss.zero_grad()


def trained_names(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


def test_gates_and_exits_learn_together_after_the_backbone():
    model = tiny_model(objective="jei-dnn")
    batch = {**inputs_for(model, 3), "labels": torch.tensor([0, 1, 2])}
    names = [(stage.name, trained_names(model)) for stage in stages(model)]
    assert [name for name, _ in names] == ["backbone", "gates and exits"]
    heads = {f"heads.classifiers.{i}.{p}" for i in range(3) for p in ("weight", "bias")}
    assert names[1][1] == {"objective.raw", *heads}
    assert "objective.raw" not in names[0][1]
    joint = tiny_model(objective="jei-dnn", objective_options={"frozen": False}).train()
    joint.objective.progress = 0.5
    joint(**batch).loss.backward()
    assert all(p.grad is not None for p in joint.parameters())
    assert [stage.name for stage in stages(joint)] == ["training"]


def test_trained_gates_are_saved_and_become_the_policy(tmp_path):
    model = tiny_model(objective="jei-dnn", objective_options={"frozen": False, "cost_weight": 0.5})
    inputs, labels = inputs_for(model, 24), torch.arange(24) % 3
    losses = losses_of_training(model, dict(inputs, labels=labels), 15)
    assert losses[-1] < losses[0]
    trace = record_trace(model, [{**inputs, "labels": labels}])
    policy = calibrate("jei-dnn", trace, gates=model.objective.gates)
    assert torch.equal(policy.gates, model.objective.gates)
    assert policy.threshold == 0.5
    model.set_policy(policy)
    model.save_pretrained(tmp_path)
    loaded = MultiExitModel.from_pretrained(tmp_path)
    assert torch.equal(loaded.objective.raw, model.objective.raw)
    assert loaded.get_policy("jei-dnn") == policy
    again = record_trace(loaded, [{**inputs, "labels": labels}])
    assert torch.equal(simulate(policy, again).exit, simulate(policy, trace).exit)


@pytest.mark.parametrize(
    ("options", "classes", "words"),
    [
        ({}, 1, "needs classes, got one output"),
        ({"cost_weight": -1}, 2, "cost_weight must be in"),
        ({"frozen": 1}, 2, "frozen must be True or False, got 1"),
        ({"warmup": 1.0}, 2, "warmup must be in"),
    ],
)
def test_errors_name_the_argument(options, classes, words):
    with pytest.raises(ValueError, match=words):
        objective("jei-dnn", Exits((1, 2), (1, 1), classes), **options)
