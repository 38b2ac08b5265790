"""Simulation: bookkeeping, trade-off curves, and agreement with the exit step itself."""

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eefast import ExitTrace, pareto_front, simulate, trade_off
from eefast.ops import ExitState, HeadWeights, Recurrence, exit_step
from eefast.ops.kinds import ANSWERS
from eefast.policies import (
    BEEM,
    PABEE,
    PCEE,
    Accumulate,
    BERxiT,
    Budgeted,
    Columns,
    Confidence,
    Entropy,
    Gain,
    Keep,
    Never,
    Policy,
    Voting,
)
from eefast.traces import TradeOffPoint, simulate_all
from tests.traces.made import learned_trace


def random_trace(exits=4, samples=50, classes=3, seed=0, exit_layers=()):
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(exits, samples, classes, generator=g).cumsum(0)
    return ExitTrace(logits, torch.randint(classes, (samples,), generator=g), exit_layers)


def test_bookkeeping_by_hand():
    sure, unsure = [9.0, 0.0], [0.1, 0.0]
    logits = torch.tensor([[sure, unsure, unsure], [sure, sure, unsure], [sure, sure, unsure]])
    outcome = simulate(Confidence(0.9), ExitTrace(logits, torch.tensor([0, 1, 0]), (2, 4, 8)))
    assert outcome.exit.tolist() == [1, 2, 3]
    assert outcome.exit_layer.tolist() == [2, 4, 8]
    assert outcome.prediction.tolist() == [0, 0, 0]
    assert outcome.accuracy == pytest.approx(2 / 3)
    assert outcome.exit_histogram.tolist() == [1, 1, 1]
    assert outcome.layer_speedup == pytest.approx(3 * 8 / (2 + 4 + 8))
    assert outcome.layers_saved == pytest.approx(1 - (2 + 4 + 8) / 24)
    assert outcome.cost_speedup == pytest.approx(outcome.layer_speedup)


def test_cost_speedup_counts_what_the_layers_cost():
    logits = torch.tensor([[[9.0, 0.0], [0.0, 0.0]], [[9.0, 0.0], [9.0, 0.0]]])
    trace = ExitTrace(logits, torch.zeros(2).long(), (2, 3), costs=(1, 3, 4))
    outcome = simulate(Confidence(0.9), trace)
    assert outcome.exit_layer.tolist() == [2, 3]
    assert outcome.cost_speedup == pytest.approx(2 * 8 / (4 + 8))
    assert outcome.layer_speedup == pytest.approx(2 * 3 / (2 + 3))


@dataclass(frozen=True)
class Answering(Policy):
    """Leaves at the second confident exit in a row, or at exit `last`, with any answer."""

    name = "test-answering"
    keep, gain = Keep.CONFIDENCE_ABOVE, Gain.CONFIDENCE_ABOVE
    accumulate: Accumulate = Accumulate.NONE
    last: int = 4
    patience: int = 2

    def columns(self, num_exits):
        return Columns(thresholds=self.patience, tau=0.6)

    def exits_used(self, num_exits):
        return range(1, self.last + 1)


@dataclass(frozen=True)
class Tempered(Confidence):
    """Each exit at a temperature of its own."""

    name = "test-tempered"
    accumulate = Accumulate.TEMPERATURE

    def columns(self, num_exits):
        return Columns(thresholds=self.threshold, tau=[0.5, 2.0, 1.0, 3.0])


@pytest.mark.parametrize(
    "policy",
    [
        BEEM.cost(4, 0.6),
        PABEE(1),
        PCEE(1, 0.6),
        Entropy(0.5),
        Tempered(0.6),
        *(Answering(a) for a in ANSWERS),
        *(Answering(a, last=3) for a in ANSWERS),
    ],
)
def test_simulation_is_what_the_exit_step_does(policy):
    trace = random_trace(samples=200)
    used = policy.exits_used(4)
    state = ExitState.start(200, 3, used[-1], votes=policy.recurrence.uses_votes)
    head = HeadWeights(None, None, torch.eye(3), None)
    for exit in used:
        exit_step(
            trace.logits[exit - 1], head, policy.table(4)[: used[-1]], state, exit=exit, layer=exit,
            keep=policy.keep, gain=policy.gain, strict=policy.strict,
            accumulate=policy.accumulate, impl="reference",
        )  # fmt: skip
    outcome = simulate(policy, trace)
    assert torch.equal(outcome.exit, state.exit_layer.long())
    assert torch.equal(outcome.prediction, state.prediction.long())
    torch.testing.assert_close(outcome.score, state.score)


@pytest.mark.parametrize("accumulate", ANSWERS)
def test_answers_do_not_depend_on_who_shares_the_run(accumulate):
    """The last exit answers otherwise than one before it, and thresholds say who gets there."""
    trace, policies = random_trace(), [Answering(accumulate, patience=t) for t in (1, 2, 4, 9)]
    own, outcomes = trace.logits.argmax(-1), simulate_all(policies, trace)
    for policy, outcome in zip(policies, outcomes, strict=True):
        assert torch.equal(outcome.prediction, simulate(policy, trace).prediction)
        differs = outcome.prediction != own.gather(0, outcome.exit[None] - 1)[0]
        if accumulate is Accumulate.MOST_CONFIDENT:
            assert not differs[outcome.exit < 4].any()
    assert differs.any()


@given(
    st.permutations(list(range(12))),
    st.sampled_from([PABEE(1), Entropy(0.6), Never(), Voting(2, 0.25)]),
)
def test_samples_do_not_influence_each_other(order, policy):
    trace = random_trace(samples=12)
    shuffled = ExitTrace(trace.logits[:, order], trace.labels[order])
    assert torch.equal(simulate(policy, trace).exit[order], simulate(policy, shuffled).exit)


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_higher_threshold_never_exits_earlier(a, b):
    low, high = sorted((a, b))
    trace = random_trace()
    for family in (Confidence, lambda t: BEEM(1.0, 4 * t)):
        early, late = simulate(family(low), trace), simulate(family(high), trace)
        assert (early.exit <= late.exit).all()


def test_never_is_the_last_exit_and_budgeted_the_one_asked_for():
    trace = random_trace()
    assert simulate(Never(), trace).accuracy == pytest.approx(trace.accuracies()[-1].item())
    assert simulate(Never(), trace).layer_speedup == 1
    assert simulate(Budgeted(2), trace).accuracy == pytest.approx(trace.accuracies()[1].item())
    assert simulate(Budgeted(2), trace).layer_speedup == 2


def test_one_exit_and_no_samples():
    assert simulate(PABEE(1), random_trace(exits=1)).exit.tolist() == [1] * 50
    empty = simulate(PABEE(1), random_trace(samples=0))
    assert empty.exit.tolist() == []
    assert math.isnan(empty.accuracy)
    assert math.isnan(empty.cost_speedup)


@pytest.mark.parametrize(
    "policy", [BEEM.cost(5, 0.9), PABEE(2), Entropy(0.6), Voting(2, 0.5), BERxiT(0.8), Never()]
)
def test_default_dtype_and_device_do_not_matter(policy):
    trace = learned_trace(samples=50)
    wanted = simulate(policy, trace)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            got = simulate(policy, trace)
            measures = got.exit_histogram.tolist(), got.exit_layer.tolist(), got.cost_speedup
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(got.exit, wanted.exit)
    assert torch.equal(got.prediction, wanted.prediction)
    assert torch.equal(got.score, wanted.score)
    assert got.score.dtype == torch.float32
    assert measures == (
        wanted.exit_histogram.tolist(), wanted.exit_layer.tolist(), wanted.cost_speedup,
    )  # fmt: skip


def test_a_policy_for_other_classes_or_exits_is_refused():
    with pytest.raises(ValueError, match="3 values, the model has 4 exits"):
        simulate(Confidence([0.5] * 3), random_trace())
    with pytest.raises(ValueError, match="calibrated for 2 classes, got 3"):
        simulate(PABEE(1, num_classes=2), random_trace())


def test_trade_off_is_sorted_and_the_front_is_not_beaten():
    points = trade_off([Confidence(t / 20) for t in range(20)], random_trace(samples=400))
    speedups = [point.layer_speedup for point in points]
    assert speedups == sorted(speedups)
    front = pareto_front(points)
    assert front == sorted(front, key=lambda p: p.layer_speedup)
    for point in points:
        as_good = [
            p
            for p in front
            if p.layer_speedup >= point.layer_speedup and p.accuracy >= point.accuracy
        ]
        assert as_good  # every point is matched by one of the front,
        if point in front:
            assert all(p[1:] == point[1:] for p in as_good)  # and none of the front is beaten


def test_front_by_hand():
    points = [TradeOffPoint(Never(), s, a) for s, a in [(1, 0.9), (2, 0.8), (1.5, 0.7), (3, 0.8)]]
    assert [(p.layer_speedup, p.accuracy) for p in pareto_front(points)] == [(1, 0.9), (3, 0.8)]


def test_many_at_once_are_as_each_alone_and_share_runs(monkeypatch):
    trace = learned_trace(samples=60)
    policies = [
        *(BEEM.cost(5, alpha) for alpha in (0.4, 0.9, (0.2, 0.4, 0.6, 0.8, 1.0))),
        *(BEEM(1.0, alpha) for alpha in (0.9, 1.8)),
        *(PCEE(t, tau) for t in (1, 2) for tau in (0.5, 0.7)),
        PCEE(2, 0.5, "confidence"), Voting(2, 0.25), BERxiT(0.6), Entropy(0.5),
        *(Budgeted(exit) for exit in (2, 4)), Never(),
    ]  # fmt: skip
    alone = [simulate(policy, trace) for policy in policies]
    steps = []
    step = Recurrence.step
    monkeypatch.setattr(Recurrence, "step", lambda *a, **k: steps.append(a[3]) or step(*a, **k))
    together = simulate_all(policies, trace)
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one.exit, other.exit)
        assert torch.equal(one.prediction, other.prediction)
        assert torch.equal(one.score, other.score)
    # BEEM's two kinds of weights, PCEE's two tau and two measures, and three others use all exits;
    # fixed depth uses its own only.
    assert len(steps) == 5 * (2 + 2 + 1 + 3) + 3
