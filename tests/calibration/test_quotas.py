"""Thresholds by quota: Algorithm 1 of EENet sample by sample, and budgets that are met."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eefast.calibration.quotas import budget_thresholds, cut, quota_thresholds


def algorithm_1(scores, shares):
    """EENet's Algorithm 1, with what `quota_thresholds` says of quotas and equals."""
    exits, samples = len(scores), len(scores[0])
    gone, thresholds = set(), [math.inf] * exits
    for k in range(exits):
        quota, count = round(samples * shares[k]), 0
        for n in sorted(range(samples), key=lambda n: -scores[k][n]):
            if n not in gone and count < quota:
                count += 1
                gone.add(n)
                thresholds[k] = scores[k][n]
        gone |= {n for n in range(samples) if scores[k][n] >= thresholds[k]}
        stay = [scores[k][n] for n in range(samples) if n not in gone]
        if stay and count:
            thresholds[k] = (thresholds[k] + max(stay)) / 2
    return [*thresholds[:-1], -math.inf]


halves = st.integers(0, 8).map(lambda i: i / 8)  # equal scores are frequent, and exact


@given(st.data(), st.integers(1, 4), st.integers(1, 9))
def test_quotas_are_algorithm_1(data, exits, samples):
    row = st.lists(halves, min_size=samples, max_size=samples)
    scores = data.draw(st.lists(row, min_size=exits, max_size=exits))
    parts = data.draw(st.lists(st.integers(0, 8), min_size=exits, max_size=exits))
    total = sum(parts) or 1
    shares = [part / total for part in parts]
    got = quota_thresholds(torch.tensor(scores), torch.tensor(shares, dtype=torch.float64))
    assert got == algorithm_1(scores, shares)


def test_quotas_by_hand():
    scores = torch.tensor([[0.1, 0.9, 0.5, 0.8], [0.7, 0.0, 0.6, 0.0], [0.0] * 4])
    shares = torch.tensor([0.5, 0.25, 0.25])
    got = quota_thresholds(scores, shares)  # samples 1 and 3, then 0, then 2
    assert got == pytest.approx([(0.8 + 0.5) / 2, (0.7 + 0.6) / 2, -math.inf])
    none_at_first = quota_thresholds(scores, torch.tensor([0.0, 1.0, 0.0]))
    assert none_at_first == [math.inf, 0.0, -math.inf]


def test_a_nan_score_never_leaves_early():
    scores = torch.tensor([[math.nan, 0.5], [math.nan, 0.5], [0.0, 0.0]])
    assert quota_thresholds(scores, torch.tensor([1.0, 0.0, 0.0])) == [0.5, math.inf, -math.inf]
    alone = quota_thresholds(scores[:, :1], torch.tensor([1.0, 0.0, 0.0]))
    assert alone == [math.inf, math.inf, -math.inf]


COSTS = torch.tensor([2.0, 3.5, 9.0, 10.0], dtype=torch.float64)  # exits may stand unevenly


@pytest.mark.parametrize("prior", [[1.0, 1.0, 1.0, 1.0], [0.01, 0.9, 0.05, 0.04]])
@pytest.mark.parametrize("budget", [2.0, 2.3, 5.0, 9.7, 10.0, 12.0])
def test_the_budget_is_met_to_a_sample(budget, prior):
    scores = torch.rand(4, 500, generator=torch.Generator().manual_seed(0))
    thresholds = torch.tensor(budget_thresholds(scores, torch.tensor(prior), COSTS, budget))
    leaves = scores >= thresholds[:, None]
    cost = COSTS[leaves.int().argmax(0)].mean().item()
    assert cost <= budget
    assert cost > min(budget, 10.0) - 4 * 8.0 / 500  # four quotas, each off by less than a sample


def test_a_constant_prior_is_a_geometric_distribution():
    scores = torch.rand(4, 4_000, generator=torch.Generator().manual_seed(0))
    costs = torch.arange(1.0, 5.0).double()
    thresholds = torch.tensor(budget_thresholds(scores, torch.ones(4), costs, 2.0))
    counts = (scores >= thresholds[:, None]).int().argmax(0).bincount().double()
    ratios = counts[1:] / counts[:-1]
    assert ratios.max() - ratios.min() < 0.02


def test_less_than_the_first_exit_costs_is_the_first_exit():
    assert budget_thresholds(torch.rand(3, 5), torch.ones(3), torch.arange(1.0, 4.0), 0.5)[0] >= 0


def test_neighbouring_scores_are_told_apart():
    low = torch.tensor(0.5)
    high = torch.nextafter(low, torch.tensor(1.0))
    threshold = torch.tensor(cut(torch.stack([low, high]), 1))
    assert high >= threshold
    assert low < threshold
