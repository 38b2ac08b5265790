"""Weights of the ensembles of lowest cross-entropy."""

import pytest
import torch
from torch.nn.functional import nll_loss

from eefast import ExitTrace, calibrate
from eefast.calibration.ztw import ensemble_weights
from eefast.policies import ZTW
from tests.traces.made import learned_trace


def loss(trace, weights, ensembles):
    """The sum of the cross-entropies of prod_j p_j^(w_j / sum w), written out."""
    total = 0.0
    log_p = trace.logits.double().log_softmax(-1)
    for i in range(1, ensembles + 1):
        mixed = sum(w * row for w, row in zip(weights[:i], log_p, strict=False)) / sum(weights[:i])
        total += nll_loss(mixed.log_softmax(-1), trace.labels).item()
    return total


@pytest.mark.parametrize("plain_last", [False, True])
def test_no_weights_near_them_are_better(plain_last):
    trace = learned_trace(exits=4)
    found = ensemble_weights(trace, plain_last=plain_last).tolist()
    ensembles = 4 - plain_last
    lowest = loss(trace, found, ensembles)
    assert lowest < loss(trace, [1.0] * 4, ensembles)
    assert max(found[:ensembles]) == 1
    for i in range(ensembles):
        for factor in (0.9, 1.1):
            other = [w * (factor if i == j else 1) for j, w in enumerate(found)]
            assert loss(trace, other, ensembles) > lowest - 1e-6


def test_an_exit_that_only_guesses_weighs_next_to_nothing():
    trace = learned_trace(exits=3, samples=1000)
    g = torch.Generator().manual_seed(1)
    guess = 3 * torch.randn(1000, 3, generator=g)
    logits = torch.stack([trace.logits[0], guess, trace.logits[2]])
    found = ensemble_weights(ExitTrace(logits, trace.labels))
    assert found[1] < 0.05
    assert found[2] == 1


def test_the_threshold_is_searched_at_these_weights():
    trace = learned_trace(samples=100)
    chosen = calibrate("ztw", trace, max_accuracy_drop=0.05)
    assert chosen.weights == pytest.approx(ensemble_weights(trace).tolist())
    assert not chosen.plain_last
    plain = calibrate("ztw", trace, plain_last=True)
    assert plain.plain_last
    assert plain.weights == pytest.approx(ensemble_weights(trace, plain_last=True).tolist())
    assert calibrate("ztw", trace, space=[ZTW(0.3)]).weights == 1
