"""BEEM's calibration: Eq. 3 against a literal reading of it, and the classical method."""

import math
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eefast import ExitTrace, calibrate, simulate
from eefast.calibration.beem import ERROR_RATE_SPACE
from eefast.policies import BEEM
from tests.ops.oracle import signals_of
from tests.traces.made import learned_trace


def equation_3(trace, weights, space, count):
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
        if count == "running":
            running -= stop
    return [*chosen, 0.0]


@settings(max_examples=25)
@given(
    st.integers(0, 10**6),
    st.sampled_from(["accuracy", "cost"]),
    st.sampled_from(["running", "independent"]),
)
def test_error_rate_thresholds_are_equation_3(seed, weights, count):
    trace = learned_trace(samples=60, seed=seed)
    policy = calibrate("beem", trace, weights=weights, count=count)
    w = policy.table(5)[:, 0].tolist()
    assert policy.thresholds == tuple(equation_3(trace, w, ERROR_RATE_SPACE, count))


def test_who_is_counted_by_hand():
    """Exit 1 lets go of its sure samples, rightly; exit 2 has only the others before it."""
    right, wrong, unsure = [3.0, 0.0], [0.0, 3.0], [0.1, 0.0]
    logits = torch.tensor([[right] * 8 + [unsure] * 2, [right] * 8 + [wrong] * 2, [right] * 10])
    labels = torch.zeros(10, dtype=torch.int64)
    logits[-1, 0], labels[0] = torch.tensor(wrong), 0  # p = 1/10
    trace = ExitTrace(logits, labels)
    chosen = [
        calibrate("beem", trace, weights="cost", cost=1.0, space=[0.9], count=count).thresholds
        for count in ("running", "independent")
    ]
    # Of those who go on, all err at exit 2 (0.95 * 2 < 3: none reach L); of all ten, two do.
    assert chosen == [(0.9, 3.0, 0.0), (0.9, 3.0, 0.0)]
    logits[1, 8] = torch.tensor(right)  # now one of two, and one of ten
    chosen = [
        calibrate("beem", trace, weights="cost", cost=1.0, space=[0.9], count=count).thresholds
        for count in ("running", "independent")
    ]
    assert chosen == [(0.9, 3.0, 0.0), (0.9, 0.9, 0.0)]


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


@pytest.mark.parametrize("options", [dict(target_speedup=1.5), dict(max_accuracy_drop=0.01)])
@pytest.mark.parametrize("weights", ["accuracy", "cost"])
def test_a_target_means_the_search_among_fine_thresholds(weights, options):
    trace = learned_trace()
    chosen = calibrate("beem", trace, weights=weights, **options)
    assert chosen == calibrate("beem", trace, weights=weights, thresholds="search", **options)
    start = calibrate("beem", trace, weights=weights)
    assert chosen.weights == start.weights
    highest = sum(start.weights)
    space = [highest * i / 100 for i in range(1, 101)]
    assert any(chosen.thresholds == pytest.approx(alpha, rel=1e-6) for alpha in space)
    ours = simulate(chosen, trace)
    for alpha in space:
        other = simulate(replace(start, thresholds=alpha), trace)
        if "target_speedup" in options and other.layer_speedup >= 1.5:
            assert ours.accuracy >= other.accuracy
        if "target_speedup" not in options and other.accuracy >= trace.accuracies()[-1] - 0.01:
            assert ours.layer_speedup >= other.layer_speedup


def test_a_target_has_full_depth_to_fall_back_on():
    """The last exit's accuracy, or a speed-up of 1, can always be had."""
    worse = learned_trace(exits=3)
    last = worse.logits[-1].clone()
    last[torch.arange(len(last)), worse.labels] += 100  # always right, as no exit before it
    trace = ExitTrace(torch.stack([*worse.logits[:-1], last]), worse.labels)
    assert calibrate("beem", trace, max_accuracy_drop=0).expected.accuracy == 1
    assert calibrate("beem", trace, target_speedup=1).expected.accuracy == 1


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
        (dict(count="all"), "count must be 'running' or 'independent', got 'all'"),
        (dict(count="independent", thresholds="search"), "count='independent' goes with"),
        (dict(thresholds="error-rate", metric="f1"), "metric=f1 goes with thresholds='search'"),
        (dict(cost=0.1), "cost goes with weights='cost'"),
        (
            dict(thresholds="error-rate", max_accuracy_drop=0.1),
            "max_accuracy_drop=0.1 goes with thresholds='search'",
        ),
        (
            dict(thresholds="error-rate", target_speedup=2),
            "target_speedup=2 goes with thresholds='search'",
        ),
        (dict(thresholds="search", space=[]), "at least one setting"),
        (dict(space=[]), "at least one setting"),
        (dict(space=5), "space must be a list of thresholds, got 5"),
        (dict(space="0.3"), "space must be a number, got '0.3'"),
        (dict(space=[0.3, math.nan]), "space must be in"),
        (dict(space=[BEEM(1, 1)]), "space must be a number, got BEEM"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        calibrate("beem", learned_trace(), **options)
