"""Repeated splits, and what is gained over fixed depth."""

import pytest
import torch

from eefast import ExitTrace, calibrate, simulate
from eefast.evaluation import FixedDepth, Spread, pooled, repeated_splits
from eefast.policies import Budgeted, Confidence, Never
from tests.traces.made import learned_trace


def trace_of(rights, layers=()):
    """Exit i is right on the first rights[i] of 10 samples."""
    logits = torch.zeros(len(rights), 10, 2)
    for exit, right in zip(logits, rights, strict=True):
        exit[:right, 1], exit[right:, 0] = 1.0, 1.0
    return ExitTrace(logits, torch.ones(10, dtype=torch.int64), layers)


def test_fixed_depth_gains_nothing_over_itself():
    trace = trace_of([3, 6, 8, 9])
    fixed = FixedDepth.of(trace)
    for exit in range(1, 5):
        outcome = simulate(Budgeted(exit), trace)
        assert fixed.accuracy_gain(outcome) == pytest.approx(0, abs=1e-12)
        assert fixed.speedup_gain(outcome) == pytest.approx(1)


@pytest.mark.parametrize(
    ("accuracy", "layers", "points", "ratio"),
    [
        (0.7, 3, 0.0, 1.0),  # half of the samples at layer 2 (0.6), half at layer 4 (0.8)
        (0.8, 3, 0.1, 4 / 3),
        (0.9, 6, 0.1, 4 / 6),  # more accurate than any depth: against the best of them, layer 4
        (0.5, 2, -0.1, 1.0),  # less accurate than any: against the first
        (0.8, 6, 0.0, 4 / 6),  # layer 6 answers 0.7, but layer 4 already answers 0.8
    ],
)
def test_gains_by_hand(accuracy, layers, points, ratio):
    class Outcome:
        pass

    outcome = Outcome()
    outcome.accuracy, outcome.mean_layers = accuracy, layers
    fixed = FixedDepth.of(trace_of([6, 8, 7], layers=(2, 4, 6)))
    assert fixed.accuracy_gain(outcome) == pytest.approx(points)
    assert fixed.speedup_gain(outcome) == pytest.approx(ratio)


def test_a_mix_is_of_the_best_two_depths():
    """Of layers with 4, 5 and 9 right, a mix of the first and the third beats the second."""
    fixed = FixedDepth.of(trace_of([4, 5, 9]))
    outcome = simulate(Budgeted(2), trace_of([4, 5, 9]))
    assert fixed.accuracy_gain(outcome) == pytest.approx(0.5 - 0.65)
    assert fixed.speedup_gain(outcome) == pytest.approx(1.4 / 2)


def test_policies_are_judged_on_the_half_that_calibration_did_not_see():
    pool = learned_trace(exits=4, samples=101)
    pool = ExitTrace(pool.logits, torch.arange(101) % 3)  # no exit knows anything
    pool.logits[..., 0] += torch.arange(101) / 1e3  # a mark for each sample
    seen = []

    def choose(half):
        seen.append({round(float(x), 6) for x in half.logits[0].flatten()})
        return Never()

    repeated_splits({"never": choose}, pool, splits=5)
    assert [len(marks) // 3 for marks in seen] == [50] * 5
    assert len({frozenset(marks) for marks in seen}) == 5


def test_a_split_is_what_calibrating_and_simulating_by_hand_gives():
    pool = learned_trace(exits=4, samples=90)
    found = repeated_splits(
        {"confidence": lambda half: calibrate("confidence", half, max_accuracy_drop=0.01)},
        pool,
        splits=1,
        seed=3,
    )["confidence"]
    order = torch.randperm(90, generator=torch.Generator().manual_seed(3))
    half, judge = (
        ExitTrace(pool.logits[:, rows], pool.labels[rows]) for rows in (order[:45], order[45:])
    )
    policy = calibrate("confidence", half, max_accuracy_drop=0.01)
    assert isinstance(policy, Confidence)
    outcome = simulate(policy, judge)
    assert found.accuracy == (outcome.accuracy,) * 3
    assert found.layer_speedup == (outcome.layer_speedup,) * 3
    assert found.accuracy_gain.median == FixedDepth.of(judge).accuracy_gain(outcome)


@pytest.mark.parametrize("name", ["berxit", "mue"])
def test_the_same_seed_gives_the_same_and_what_policies_read_goes_along(name):
    pool = learned_trace(exits=4, samples=60)
    choosers = {name: lambda half: calibrate(name, half, max_accuracy_drop=0.01)}
    first = repeated_splits(choosers, pool, splits=3)
    assert first == repeated_splits(choosers, pool, splits=3)
    assert first != repeated_splits(choosers, pool, splits=3, seed=1)


def test_spread_is_the_median_and_the_middle_80_percent():
    assert Spread.of(range(11)) == Spread(median=5, p10=1, p90=9)


def test_pooled_traces_are_one_after_the_other():
    a, b = learned_trace(samples=5, seed=1), learned_trace(samples=7, seed=2)
    both = pooled([a, b])
    assert torch.equal(both.logits, torch.cat([a.logits, b.logits], 1))
    assert torch.equal(both.labels, torch.cat([a.labels, b.labels]))
    assert torch.equal(both.scores, torch.cat([a.scores, b.scores], 1))
    assert torch.equal(both.similarity, torch.cat([a.similarity, b.similarity], 1))
    assert (both.exit_layers, both.costs) == (a.exit_layers, a.costs)


def test_one_sample_cannot_be_split():
    with pytest.raises(ValueError, match="at least 2 samples to be split, got 1"):
        repeated_splits({}, learned_trace(samples=1))
