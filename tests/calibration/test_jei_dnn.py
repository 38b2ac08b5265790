"""JEI-DNN's gates trained on a trace: the lowest expected loss, and limits that are kept."""

import math

import pytest
import torch

from eefast import ExitTrace, calibrate, simulate
from eefast.calibration import Costs, Goal, jei_dnn
from eefast.training import Exits, objective
from eefast.training.jei_dnn import RATE
from tests.traces.made import learned_trace


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    monkeypatch.setattr(jei_dnn, "COST_WEIGHTS", (0.03, 0.3, 3.0))
    monkeypatch.setattr(jei_dnn, "EPOCHS", 60)


def test_gates_minimise_the_objectives_loss():
    trace = learned_trace(exits=3, samples=200)
    (gates,) = jei_dnn.fit(trace, Goal(), [0.5])
    loss = objective("jei-dnn", Exits((1, 2, 3), (1, 1, 1), 3), cost_weight=0.5)
    output = type("Output", (), {"exit_logits": tuple(trace.logits)})

    def value(gates):
        with torch.no_grad():
            loss.raw.copy_(gates / RATE)
            return loss(output, trace.labels).item()

    start, found = value(torch.zeros(2, 3)), value(gates)
    assert found < start
    g = torch.Generator().manual_seed(0)
    assert all(found < value(3 * torch.randn(2, 3, generator=g)) for _ in range(20))


def test_a_dearer_layer_lets_more_leave_early():
    trace = learned_trace(exits=4, samples=200)
    layers = [
        simulate(calibrate("jei-dnn", trace, cost_weight=w), trace).mean_layers
        for w in (0.0, 0.5, 100.0)
    ]
    assert layers[0] > layers[1] > layers[2] == 1


@pytest.mark.parametrize(
    "limit",
    [
        {"target_speedup": 2.0},
        {"budget": 2.5, "costs": Costs((1.0, 0.5, 1.5, 2.0), (0.1,) * 4, "ms")},
        {"max_accuracy_drop": 0.02},
    ],
)
def test_limits_are_kept(limit):
    trace = learned_trace(exits=4, samples=200)
    policy = calibrate("jei-dnn", trace, **limit)
    outcome = simulate(policy, trace)
    assert policy.num_classes == 3
    if "target_speedup" in limit:
        assert outcome.layer_speedup >= 2
    elif "budget" in limit:
        spent = torch.tensor([1.1, 1.7, 3.3, 5.4])
        assert spent[outcome.exit - 1].mean() <= 2.5 + 1e-6
    else:
        assert outcome.accuracy >= trace.accuracies()[-1] - 0.02 - 1e-9
        assert outcome.layer_speedup > 1


def test_gates_that_were_trained_elsewhere_open_at_a_half_or_where_the_limit_says():
    trace = learned_trace(exits=3, samples=100)
    gates = torch.tensor([[10.0, 0.0, -8.0], [10.0, 0.0, -8.0]])
    free = calibrate("jei-dnn", trace, gates=gates)
    assert free.threshold == 0.5
    fast = calibrate("jei-dnn", trace, gates=gates, target_speedup=2.5)
    assert torch.equal(fast.gates, gates)
    assert fast.threshold < 0.5
    assert simulate(fast, trace).layer_speedup >= 2.5


def test_infinite_logits_and_one_exit_are_no_trouble():
    trace = learned_trace(exits=3, samples=30)
    logits = trace.logits.clone()
    logits[0, 0, 0] = math.inf
    with torch.inference_mode():
        policy = calibrate("jei-dnn", ExitTrace(logits, trace.labels), cost_weight=1.0)
    assert policy.gates.isfinite().all()
    one = calibrate("jei-dnn", learned_trace(exits=1, samples=20))
    assert list(one.gates.shape) == [0, 3]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gates": torch.zeros(3, 3)}, "there are 3 gates, the model has 3 exits"),
        ({"gates": torch.zeros(2, 3), "cost_weight": 1.0}, "gates or cost_weight, got both"),
        ({"cost_weight": -1.0}, "cost_weight must be in"),
    ],
)
def test_errors_name_the_argument(options, words):
    with pytest.raises(ValueError, match=words):
        calibrate("jei-dnn", learned_trace(exits=3, samples=20), **options)
