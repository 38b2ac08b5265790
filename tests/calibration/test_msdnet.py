"""MSDNet's thresholds: the paper's shares, and budgets that are kept."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eefast import ExitTrace, calibrate, simulate
from eefast.calibration import Costs
from eefast.calibration.msdnet import thresholds
from eefast.policies import MSDNet
from tests.traces.made import learned_trace


def by_the_paper(trace, shares):
    """Exit by exit the surest of those that are left leave, until the shares so far have left."""
    samples = len(trace.labels)
    confidence = trace.logits.softmax(-1).amax(-1).tolist()
    left, gone, chosen = set(range(samples)), 0, []
    for i in range(trace.num_exits - 1):
        ranked = sorted(left, key=lambda n: -confidence[i][n])
        theta = math.inf
        for n in ranked:
            if gone >= samples * sum(shares[: i + 1]) - 1e-9:
                break
            theta = confidence[i][n]
            gone += 1
        out = {n for n in left if confidence[i][n] >= theta}
        left -= out
        gone = samples - len(left)
        stay = [confidence[i][n] for n in left]
        chosen.append((theta + max(stay)) / 2 if out and stay else theta)
    return [*chosen, 0.0]


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.lists(st.integers(0, 5), min_size=4, max_size=4))
def test_thresholds_are_the_papers(seed, parts):
    total = sum(parts) or 1
    shares = [part / total for part in parts] if sum(parts) else [0.25] * 4
    trace = learned_trace(exits=4, samples=40, seed=seed)
    got = thresholds(trace, torch.tensor(shares, dtype=torch.float64))
    assert list(got) == pytest.approx(by_the_paper(trace, shares))


def test_shares_by_hand():
    """Ten samples, surer the higher their number: shares .2 .3 .5 leave in that order."""
    odds = torch.arange(1, 11).float()
    z = torch.stack([odds, torch.zeros(10)], -1).expand(3, 10, 2)
    trace = ExitTrace(z.clone(), torch.zeros(10).long())
    policy = MSDNet(thresholds(trace, torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)))
    assert simulate(policy, trace).exit.tolist() == [3] * 5 + [2] * 3 + [1] * 2


@pytest.mark.parametrize("budget", [1, 1.3, 2.2, 3, 4.1, 5, 6.5])
def test_a_budget_is_met_by_a_geometric_series(budget):
    trace = learned_trace(samples=2000)
    outcome = simulate(calibrate("msdnet", trace, budget=budget), trace)
    assert min(budget, 5) - 0.01 < outcome.mean_layers <= budget
    counts = outcome.exit_histogram.double()
    if 1.3 <= budget <= 4.1:
        ratios = counts[1:] / counts[:-1]  # of neighbours, all alike
        assert ratios.tolist() == pytest.approx([ratios.mean().item()] * 4, rel=0.1)


def test_a_budget_in_milliseconds_and_a_speedup():
    trace = learned_trace(samples=1000)
    costs = Costs((1.0, 2.0, 1.0, 4.0, 2.0), (0.5,) * 5, "ms")
    chosen = calibrate("msdnet", trace, budget=6, costs=costs)
    leaving = costs.of_leaving(chosen, trace.exit_layers)
    spent = leaving[simulate(chosen, trace).exit - 1].mean().item()
    assert 5.98 < spent <= 6
    layers = calibrate("msdnet", trace, target_speedup=2)
    assert layers == calibrate("msdnet", trace, budget=2.5)
    with pytest.raises(ValueError, match="keeps within budget 1 "):
        calibrate("msdnet", trace, budget=1, costs=costs)


def test_without_a_budget_the_best_ratio_is_taken():
    trace = learned_trace()
    best = simulate(calibrate("msdnet", trace), trace)
    assert best.accuracy >= simulate(calibrate("msdnet", trace, budget=3), trace).accuracy
    assert calibrate("msdnet", trace, space=[MSDNet(0.3)]).threshold == 0.3


def test_equally_sure_samples_leave_together():
    trace = ExitTrace(torch.zeros(2, 10, 2), torch.zeros(10).long())
    policy = MSDNet(thresholds(trace, torch.tensor([0.5, 0.5])))
    assert simulate(policy, trace).exit.tolist() == [1] * 10
