"""EEIC's voting against Eq. 23 counted by hand and one sample at a time."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eefast import ExitTrace, simulate
from eefast.policies import Voting


def trace_of(*samples, classes=3):
    """Exits that predict what the samples' lists say."""
    predictions = torch.tensor(samples).T
    logits = torch.nn.functional.one_hot(predictions, classes).float() * 3
    return ExitTrace(logits, torch.zeros(len(samples), dtype=torch.int64))


def equation_23(predictions, k, delta):
    """One sample: exit, answer and V."""
    for exit in range(1, len(predictions) + 1):
        votes = Counter(predictions[:exit])
        most = max(votes.values())
        tied = {c for c, n in votes.items() if n == most}
        answer = next(c for c in reversed(predictions[:exit]) if c in tied)
        value = most / exit**k
        if value >= delta or exit == len(predictions):
            return exit, answer, value
    raise AssertionError


@pytest.mark.parametrize(
    ("predictions", "delta", "exit", "answer"),
    [
        ([1, 1, 1, 1], 3, 3, 1),
        ([1, 2, 1, 1], 3, 4, 1),
        ([0, 1, 1, 2], 2, 3, 1),
        ([0, 1, 2, 1], 3, 4, 1),  # two votes of four: class 1 at the last exit
        ([2, 1, 0, 0], 1, 1, 2),
        ([0, 1, 2, 2], 4, 4, 2),
        ([1, 0, 0, 1], 9, 4, 1),  # a tie: the most recent prediction
        ([1, 2, 2, 1], 9, 4, 1),
        ([1, 1, 2, 0], 9, 4, 1),  # the last two are minorities
        ([1, 2, 1, 2], 9, 4, 2),
    ],
)
def test_by_hand(predictions, delta, exit, answer):
    outcome = simulate(Voting(delta), trace_of(predictions))
    assert (outcome.exit.item(), outcome.prediction.item()) == (exit, answer)


def test_the_exponent_asks_late_exits_for_more():
    trace = trace_of([0, 1, 1, 1])  # V = 1, 1/2^k, 2/3^k, 3/4^k
    assert simulate(Voting(1.5), trace).exit.item() == 3
    assert simulate(Voting(1.5, 0.5), trace).exit.item() == 4
    assert simulate(Voting(1.1, 0.5), trace).exit.item() == 3
    assert simulate(Voting(1.1, 0.5), trace).score.item() == pytest.approx(2 / 3**0.5)


@given(
    st.integers(1, 4).flatmap(
        lambda classes: st.tuples(
            st.just(classes),
            st.lists(
                st.lists(st.integers(0, classes - 1), min_size=6, max_size=6),
                min_size=1,
                max_size=5,
            ),
        )
    ),
    st.sampled_from([0.0, 0.25, 0.5, 0.75]),
    st.floats(0.3, 6).filter(lambda d: d != round(d)),
)
def test_a_batch_is_each_sample_by_itself(case, k, delta):
    classes, samples = case
    trace = trace_of(*samples, classes=max(classes, 2))
    outcome = simulate(Voting(delta, k), trace)
    for n, predictions in enumerate(samples):
        values = [m / i**k for i in range(1, 7) for m in range(1, i + 1)]
        if any(abs(value - delta) < 1e-5 for value in values):
            continue
        exit, answer, value = equation_23(predictions, k, delta)
        assert outcome.exit[n] == exit
        assert outcome.prediction[n] == answer
        assert outcome.score[n].item() == pytest.approx(value, rel=1e-6)


def test_one_threshold_per_exit():
    trace = trace_of([1, 1, 1, 1])
    assert simulate(Voting([2, 3, 4, 1]), trace).exit.item() == 4
    assert simulate(Voting([2, 2, 4, 1]), trace).exit.item() == 2
