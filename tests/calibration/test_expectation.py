"""The bootstrap: against plain resampling, and what it does at the edges."""

import numpy as np
import pytest
import torch

from eefast import calibrate, simulate
from eefast.calibration.expectation import expectation
from eefast.policies import PABEE, Budgeted, Never
from tests.calibration.test_search import ConfidentPatience
from tests.traces.made import learned_trace


def test_it_is_that_of_resampled_samples():
    trace = learned_trace(samples=300)
    outcome = simulate(PABEE(1), trace)
    found = expectation(outcome)
    assert (found.accuracy, found.layer_speedup) == (outcome.accuracy, outcome.layer_speedup)
    rng = np.random.default_rng(1)
    rows = rng.integers(300, size=(4000, 300))
    right = (outcome.prediction == trace.labels).numpy()[rows].mean(1)
    speedup = 5 / outcome.exit_layer.numpy()[rows].mean(1)
    assert found.accuracy_interval == pytest.approx(np.quantile(right, [0.025, 0.975]), abs=0.005)
    assert found.layer_speedup_interval == pytest.approx(
        np.quantile(speedup, [0.025, 0.975]), abs=0.01
    )


@pytest.mark.parametrize("policy", ["beem", "pcee", ConfidentPatience])
def test_every_calibrated_policy_has_it(policy):
    trace = learned_trace()
    chosen = calibrate(policy, trace)
    assert chosen.expected == expectation(simulate(chosen, trace))  # the same numbers each time
    assert chosen.expected.samples == 400
    (low, high), accuracy = chosen.expected.accuracy_interval, chosen.expected.accuracy
    assert low < accuracy < high


def test_layers_are_counted_not_exits():
    trace = learned_trace(exits=2)
    trace = type(trace)(trace.logits, trace.labels, exit_layers=(3, 12))
    assert expectation(simulate(Budgeted(1), trace)).layer_speedup_interval == (4, 4)


@pytest.mark.parametrize("policy", [Budgeted(2), Never()])
def test_what_does_not_vary_has_no_width(policy):
    trace = learned_trace(exits=4, samples=1)
    found = expectation(simulate(policy, trace))
    assert found.layer_speedup_interval == (found.layer_speedup,) * 2
    assert found.accuracy_interval == (found.accuracy,) * 2


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    expectation(simulate(PABEE(1), learned_trace()))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]
