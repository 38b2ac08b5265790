"""Theorem 3.1's condition against the formula, sample by sample."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from eefast import ExitTrace, calibrate
from eefast.calibration import theorem_condition
from eefast.policies import BEEM
from tests.traces.made import learned_trace


def by_the_paper(policy, trace):
    """q_i < a_i / (a_i + (1/p - 1) b_i^(i-1)), a_i = P(leaves | 1 change) / P(leaves | 0)."""
    table, (exits, samples, _) = policy.table(trace.num_exits), trace.logits.shape
    p = trace.logits.softmax(-1)
    confidence, y = p.amax(-1).tolist(), p.argmax(-1).tolist()
    labels = trace.labels.tolist()
    q = [sum(y[i][n] != labels[n] for n in range(samples)) / samples for i in range(exits)]
    left, found = {}, []
    score = [0.0] * samples
    for i in range(exits - 1):
        weight, alpha, _ = table[i].tolist()
        leaving = []
        for n in range(samples):
            agrees = i > 0 and y[i][n] == y[i - 1][n]
            score[n] = (score[n] if agrees else 0.0) + weight * confidence[i][n]
            if n not in left and score[n] >= alpha:
                left[n] = i
                leaving.append(n)
        by_changes = {0: [], 1: []}
        for n in range(samples):
            changes = sum(y[j][n] != y[j - 1][n] for j in range(1, i + 1))
            if changes in by_changes:
                by_changes[changes].append(n in leaving)
        a0, a1 = (sum(v) / len(v) if v else 0.0 for v in (by_changes[0], by_changes[1]))
        wrong = sum(y[i][n] != labels[n] for n in leaving)
        rate = wrong / len(leaving) if leaving else math.nan
        bound = math.nan
        if a0 or a1:
            a = a1 / a0 if a0 else math.inf
            b = max(q[: i + 1]) / min(q[: i + 1])
            bound = 1.0 if a == math.inf else a / (a + (1 / q[-1] - 1) * b**i)
        found.append((q[i], bound, not q[i] >= bound, len(leaving), rate))
    return found


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.floats(0.3, 2))
def test_it_is_the_papers(seed, scale):
    trace = learned_trace(exits=4, samples=80, seed=seed)
    assume(trace.accuracies().max() < 1)  # the formula divides by p and by each q_i
    policy = BEEM.cost(4, [scale * alpha for alpha in (0.2, 0.5, 0.6, 0)])
    got = theorem_condition(policy, trace)
    assert [condition.exit for condition in got] == [1, 2, 3]
    for condition, wanted in zip(got, by_the_paper(policy, trace), strict=True):
        assert condition[1:] == pytest.approx(wanted, nan_ok=True)


def test_by_hand():
    """Eight samples: exit 1 errs on 4, exit 2 on 1, the last on 2.

    At exit 2 the three who have changed their prediction leave, and one of the five who have not.
    """
    right, wrong = [5.0, 0.0], [0.0, 5.0]
    first = [wrong] * 4 + [[0.1, 0.0]] * 4
    second = [right] * 3 + [wrong] + [[0.1, 0.0]] * 4
    last = [right] * 6 + [wrong] * 2
    trace = ExitTrace(torch.tensor([first, second, last]), torch.zeros(8).long())
    one, two = theorem_condition(BEEM([0.1, 1.0, 1.0], [2.0, 0.99, 0.0]), trace)
    assert one[:1] + one[3:4] == (1, True)
    assert math.isnan(one.bound)  # nothing leaves there
    assert (two.error_rate, two.leaving, two.leaving_error_rate) == (1 / 8, 4, 1 / 4)
    assert two.bound == pytest.approx(5 / (5 + 3 * 4))  # a = 1 / (1/5), 1/p - 1 = 3, b = 4
    assert two.holds


def test_extremes():
    labels = torch.zeros(6).long()
    right, wrong = torch.tensor([[3.0, 0.0]] * 6), torch.tensor([[0.0, 3.0]] * 6)
    policy = BEEM(1.0, 0.5)
    for first, last, bound, holds in (
        (right, right, 0.0, False),  # p = 0: no rate is below it
        (right, wrong, 0.0, False),  # no change yet: a = 0
        (wrong, wrong, 0.0, False),
    ):
        (one,) = theorem_condition(policy, ExitTrace(torch.stack([first, last]), labels))
        assert (one.bound, one.holds) == (bound, holds)
    with pytest.raises(ValueError, match="no samples to judge"):
        theorem_condition(policy, learned_trace(samples=0))
    assert len(theorem_condition(calibrate("beem", learned_trace()), learned_trace())) == 4
