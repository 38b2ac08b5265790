"""BEEM's calibration: Eq. 3 against a literal reading of it, and the classical method."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eefast import ExitTrace, calibrate, simulate
from eefast.calibration.beem import ERROR_RATE_SPACE
from tests.ops.oracle import signals_of
from tests.traces.made import learned_trace


def equation_3(trace, weights, space):
    """Section 3.4, sample by sample."""
    exits, samples, _ = trace.logits.shape
    last = [signals_of(z)[0] for z in trace.logits[-1].tolist()]
    p = Fraction(
        sum(y != label for y, label in zip(last, trace.labels.tolist(), strict=True)), samples
    )
    running, score, before = set(range(samples)), [0.0] * samples, [-1] * samples
    chosen = []
    for t in range(exits - 1):
        wrong = {}
        for n in running:
            y, c, _ = signals_of(trace.logits[t, n].tolist())
            score[n] = (score[n] if y == before[n] else 0.0) + weights[t] * c
            before[n], wrong[n] = y, y != trace.labels[n].item()
        for alpha in [*space, exits]:
            stop = {n for n in running if score[n] >= alpha}
            if not stop or Fraction(sum(wrong[n] for n in stop), len(stop)) <= p:
                break
        chosen.append(alpha)
        running -= stop
    return [*chosen, 0.0]


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from(["accuracy", "cost"]))
def test_error_rate_thresholds_are_equation_3(seed, weights):
    trace = learned_trace(samples=60, seed=seed)
    policy = calibrate("beem", trace, weights=weights)
    table = policy.table(5)
    assert policy.thresholds == tuple(equation_3(trace, table[:, 0].tolist(), ERROR_RATE_SPACE))


def test_weights():
    trace = learned_trace()
    assert calibrate("beem", trace).weights == tuple(trace.accuracies().tolist())
    cost = calibrate("beem", trace, weights="cost")
    assert cost.weights == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    other = calibrate("beem", trace, weights="cost", cost=0.1)
    assert other.weights == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])


def test_samples_that_leave_early_err_no_more_than_the_last_exit():
    trace = learned_trace(samples=3000)
    outcome = simulate(calibrate("beem", trace), trace)
    p = 1 - trace.accuracies()[-1].item()
    assert outcome.layer_speedup > 1.2
    for exit in range(1, 5):
        here = outcome.exit == exit
        if here.any():
            assert (outcome.prediction != trace.labels)[here].double().mean() <= p


def test_a_finer_space_is_no_slower():
    trace = learned_trace(samples=2000)
    coarse = simulate(calibrate("beem", trace), trace)
    fine = calibrate("beem", trace, space=[i / 20 for i in range(1, 101)])
    assert set(fine.thresholds) <= {*(i / 20 for i in range(1, 101)), 5.0, 0.0}
    first = (coarse.exit == 1).sum(), (simulate(fine, trace).exit == 1).sum()
    assert first[1] >= first[0]


def test_no_exit_that_never_satisfies_eq_3_lets_a_sample_leave():
    labels = torch.zeros(10, dtype=torch.int64)
    logits = torch.tensor([[0.0, 9.0], [9.0, 0.0]])[:, None].expand(2, 10, 2)  # first always wrong
    policy = calibrate("beem", ExitTrace(logits.contiguous(), labels), weights="cost", cost=9.0)
    assert policy.thresholds == (math.inf, 0.0)


def test_search_takes_the_most_accurate_threshold_of_the_papers_space():
    trace = learned_trace()
    policy = calibrate("beem", trace, thresholds="search")
    accuracies = [policy.accuracy(policy.weights, a) for a in (0.3, 0.6, 0.9, 1.2, 1.5)]
    outcomes = [simulate(p, trace) for p in accuracies]
    chosen = simulate(policy, trace)
    assert chosen.accuracy == max(o.accuracy for o in outcomes)
    assert chosen.layer_speedup == max(
        o.layer_speedup for o in outcomes if o.accuracy == chosen.accuracy
    )


def test_calibration_is_deterministic_and_notes_its_shape():
    first, second = (calibrate("beem", learned_trace()) for _ in range(2))
    assert first == second
    assert (first.num_exits, first.num_classes) == (5, 3)
    with pytest.raises(ValueError, match="calibrated for 5 exits, got 4"):
        first.check(4, 3)


def test_l_is_always_a_candidate():
    """No score reaches 100, nor 5 before the last exit: the smaller one is taken."""
    assert calibrate("beem", learned_trace(), space=[100.0]).thresholds == (5.0,) * 4 + (0.0,)


def test_equation_3_is_a_recipe_of_beem_alone():
    with pytest.raises(TypeError, match="weights"):
        calibrate("pabee", learned_trace(), weights="cost")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(weights="guess"), "weights must be 'accuracy' or 'cost', got 'guess'"),
        (dict(thresholds="guess"), "thresholds must be 'error-rate' or 'search', got 'guess'"),
        (dict(cost=0.1), "cost goes with weights='cost'"),
        (dict(tolerance=0.1), "tolerance goes with thresholds='search'"),
        (dict(thresholds="search", tolerance=-1), "tolerance must be 0 or more"),
        (dict(thresholds="search", space=[]), "at least one setting"),
        (dict(space=[]), "at least one setting"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        calibrate("beem", learned_trace(), **options)
