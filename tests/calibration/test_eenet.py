"""EENet's scheduler: its losses written out, budgets that are met, and its ablations."""

import math

import pytest
import torch

from eefast import ExitTrace, calibrate, simulate
from eefast.calibration import Costs, eenet
from eefast.calibration.eenet import fit, scheduler_loss
from eefast.calibration.features import scores_of
from eefast.policies import EENet
from tests.ops.oracle import signals_of
from tests.traces.made import learned_trace


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    monkeypatch.setattr(eenet, "EPOCHS", 40)


def plain_loss(utility, assignment, right, costs, budget, alpha, beta):
    """Eq. 4 and 10 to 15, sample by sample; Eq. 12 with its minus sign."""
    samples, exits = len(right), len(right[0])
    r_hat = []
    for row in assignment:
        total = sum(math.exp(value) for value in row)
        r_hat.append([math.exp(value) / total for value in row])
    scoring = 0.0
    for k in range(exits):
        survival = [1 - sum(r_hat[n][:k]) for n in range(samples)]
        for n in range(samples):
            q = 1 / (1 + math.exp(-utility[n][k]))
            error = -(right[n][k] * math.log(q) + (1 - right[n][k]) * math.log(1 - q))
            scoring += survival[n] / sum(survival) * error / exits
    spent = sum(r_hat[n][k] * costs[k] for n in range(samples) for k in range(exits)) / samples
    imitation = 0.0
    for n in range(samples):
        for k in range(exits):
            r = right[n][k] / sum(right[n]) if sum(right[n]) else 1 / exits
            imitation -= math.log(r_hat[n][k]) * r / (samples * exits)
    return scoring + alpha * abs(budget - spent) / budget + beta * imitation


def test_the_loss_is_equations_11_to_15():
    g = torch.Generator().manual_seed(0)
    utility, assignment = torch.randn(2, 7, 3, generator=g).double()
    right = (torch.rand(7, 3, generator=g) > 0.4).double()
    right[0], right[1] = 0, 1  # never right, always right
    costs = torch.tensor([1.0, 2.5, 4.0], dtype=torch.float64)
    for budget in (1.5, 3.5):  # more and less than is spent
        got = scheduler_loss(utility, assignment, right, costs, budget, 0.1, 0.3).item()
        lists = [x.tolist() for x in (utility, assignment, right, costs)]
        assert got == pytest.approx(plain_loss(*lists, budget, 0.1, 0.3))


def test_scores_tell_right_answers_from_wrong_ones(monkeypatch):
    monkeypatch.setattr(eenet, "EPOCHS", 400)
    whole = ExitTrace.load("docs/demo/tweets/validation.safetensors")
    trace = ExitTrace(whole.logits[:, :800], whole.labels[:800])
    fitted = fit(trace, torch.arange(1, 7), 3.0, alpha=0.01, beta=1e-4, hidden=2.0, seed=0)[0]
    scores = scores_of(EENet(math.inf, fitted), trace)
    for score, logits in zip(scores, trace.logits, strict=True):
        right = logits.argmax(-1) == trace.labels
        below = (score[right][:, None] > score[~right]).double().mean()  # area under the ROC curve
        assert below > 0.6


def test_survival_is_outside_the_graph():
    assignment = torch.randn(5, 3, requires_grad=True)
    utility, right = torch.randn(5, 3), torch.ones(5, 3)
    loss = scheduler_loss(utility, assignment, right, torch.ones(3), 1.0, 0.0, 0.0)
    loss.backward()
    assert assignment.grad.abs().max() == 0


SKIPPING = [3, 6, 9, 12]


@pytest.mark.parametrize("scorer", ["network", "max"])
@pytest.mark.parametrize("distribution", ["learned", "geometric"])
@pytest.mark.parametrize(
    ("limit", "cost"),
    [
        ({"target_speedup": 2.0}, lambda layer: layer / 6),
        ({"budget": 5.0}, lambda layer: layer / 5),
        ({"budget": 7.0, "costs": Costs((1.0,) * 6 + (0.5,) * 6, (0.25,) * 4, "ms")}, None),
    ],
    ids=["speed-up", "layers", "ms"],
)
def test_the_budget_is_met_and_spent(limit, cost, scorer, distribution):
    made = learned_trace(exits=4, samples=200)
    trace = ExitTrace(made.logits, made.labels, tuple(SKIPPING))
    policy = calibrate("eenet", trace, scorer=scorer, distribution=distribution, **limit)
    outcome = simulate(policy, trace)
    if cost is None:
        spent = {3: 3.25, 6: 6.5, 9: 8.25, 12: 10.0}
        mean = sum(spent[layer] for layer in outcome.exit_layer.tolist()) / 200 / 7
    else:
        mean = cost(outcome.mean_layers)
    assert 0.97 < mean <= 1 + 1e-9
    assert policy.thresholds[-1] == -math.inf
    assert bool(policy.networks) == (scorer == "network")
    assert policy.num_classes == 3
    assert policy.expected.layer_speedup == pytest.approx(outcome.layer_speedup)


def misled(samples=200, seed=0):
    """Exit 1 is sure of class 1 and always wrong about it, unsure of class 0 and always right."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.zeros(samples, dtype=torch.int64)
    wrong = torch.arange(samples) % 2 == 0
    sureness = 1 + torch.rand(samples, generator=g)
    margin = torch.where(wrong, 4 * sureness, -sureness)
    first = torch.stack([-margin / 2, margin / 2], 1)
    last = torch.tensor([3.0, -3.0]).expand(samples, 2)
    return ExitTrace(torch.stack([first, last]), labels)


def test_the_network_sees_what_confidence_does_not(monkeypatch):
    monkeypatch.setattr(eenet, "EPOCHS", 150)
    trace = misled()
    accuracy = {}
    for scorer in ("network", "max"):
        policy = calibrate("eenet", trace, budget=1.5, scorer=scorer)
        accuracy[scorer] = policy.expected.accuracy
    assert accuracy["network"] > 0.99
    assert accuracy["max"] < 0.6


def test_the_scores_that_were_trained_are_the_policys():
    trace = learned_trace(exits=3, samples=50)
    networks, shares = fit(
        trace, torch.arange(1.0, 4.0), 2.0, alpha=0.01, beta=1e-4, hidden=2.0, seed=0
    )
    assert [list(w.shape) for w in networks] == [[12, 8], [14, 9], [16, 10]]  # D_h = 2 D
    assert shares.sum().item() == pytest.approx(1)
    policy = calibrate("eenet", trace, budget=2.0)
    assert all(map(torch.equal, policy.networks, networks))
    first = simulate(policy, trace)
    for n in range(5):
        y, c, h = signals_of(trace.logits[0, n].tolist())
        features = torch.tensor([*trace.logits[0, n].softmax(-1), c, 1 - h, 1.0])
        units = torch.nn.functional.leaky_relu(networks[0][:, :6] @ features, 0.01)
        q = (networks[0][:, -1] @ units).sigmoid().item()
        leaves = q >= policy.thresholds[0]
        assert (first.exit[n].item() == 1) == leaves
        if leaves:
            assert first.prediction[n].item() == y


def test_the_seed_decides_and_nothing_else():
    trace = learned_trace(exits=3, samples=60)
    with torch.inference_mode():  # as some callers have it
        first = calibrate("eenet", trace, target_speedup=1.5, seed=1)
    torch.rand(3)
    again = calibrate("eenet", trace, target_speedup=1.5, seed=1)
    assert first.thresholds == again.thresholds
    assert all(map(torch.equal, first.networks, again.networks))
    other = calibrate("eenet", trace, target_speedup=1.5, seed=2)
    assert not torch.equal(first.networks[0], other.networks[0])


def test_training_ends_when_the_loss_no_longer_falls(monkeypatch):
    losses = []

    def recorded(*args):
        loss = scheduler_loss(*args)
        losses.append(loss.item())
        return loss

    monkeypatch.setattr(eenet, "scheduler_loss", recorded)
    monkeypatch.setattr(eenet, "EPOCHS", 200)
    monkeypatch.setattr(eenet, "PATIENCE", 3)
    monkeypatch.setattr(eenet, "LEARNING_RATE", 1.0)
    calibrate("eenet", learned_trace(exits=2, samples=40), budget=1.5)
    assert len(losses) < 200
    lowest = losses.index(min(losses))
    assert len(losses) == lowest + 1 + 3


def test_without_a_budget_several_are_tried(monkeypatch):
    monkeypatch.setattr(eenet, "EPOCHS", 20)
    monkeypatch.setattr(eenet, "BUDGETS", 4)
    trace = learned_trace(exits=3, samples=100)
    most = calibrate("eenet", trace).expected
    careful = calibrate("eenet", trace, max_accuracy_drop=0.05).expected
    assert most.accuracy >= careful.accuracy
    assert careful.accuracy >= trace.accuracies()[-1].item() - 0.05
    assert careful.layer_speedup > 1


def test_infinite_logits_and_one_exit_are_no_trouble():
    trace = learned_trace(exits=3, samples=50)
    logits = trace.logits.clone()
    logits[0, 0, 0] = math.inf
    policy = calibrate("eenet", ExitTrace(logits, trace.labels), budget=2.0)
    assert all(w.isfinite().all() for w in policy.networks)
    assert simulate(policy, ExitTrace(logits, trace.labels)).exit[0].item() == 3
    one = learned_trace(exits=1, samples=20)
    assert calibrate("eenet", one, target_speedup=1.0).thresholds == (-math.inf,)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scorer": "entropy"}, "scorer must be 'network' or 'max', got 'entropy'"),
        ({"distribution": "even"}, "distribution must be 'learned' or 'geometric', got 'even'"),
        ({"alpha": -1}, "alpha must be in"),
        ({"hidden": "2"}, "hidden must be a number, got '2'"),
        ({"seed": 0.5}, "seed must be a whole number"),
        ({"budget": 0.5}, r"budget must be more than 0 and at least 1, .*got 0.5 \(budget=0.5\)"),
        ({"target_speedup": 9}, "at least 1, what leaving at exit 1 costs"),
    ],
)
def test_errors_name_the_argument(options, words):
    with pytest.raises(ValueError, match=words):
        calibrate("eenet", learned_trace(exits=3, samples=20), **options)
