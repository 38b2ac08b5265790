"""What the recurrence can express beside our own policies: each written out for one sample."""

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from eefast import ExitTrace, simulate
from eefast.policies import Accumulate, Columns, Gain, Keep, Policy, ScorerKind
from tests.ops.oracle import signals_of

EXITS, CLASSES = 4, 3
numbers = st.floats(-4, 4, width=16)
sample = st.lists(
    st.lists(numbers, min_size=CLASSES, max_size=CLASSES), min_size=EXITS, max_size=EXITS
)
scores = st.lists(st.floats(0, 1, width=16), min_size=EXITS, max_size=EXITS)


def outcome_of(policy, z, q=None):
    """Exit, prediction and score of one sample, the middle one of a batch of three."""
    logits = torch.tensor(z)[:, None]
    others = torch.randn(EXITS, 2, CLASSES)
    logits = torch.cat([others[:, :1], logits, others[:, 1:]], 1)
    scores = None if q is None else torch.tensor(q)[:, None].expand(EXITS, 3)
    trace = ExitTrace(logits, torch.zeros(3, dtype=torch.int64), scores=scores)
    simulation = simulate(policy, trace)
    return [x[1].item() for x in (simulation.exit, simulation.prediction, simulation.score)]


def assert_follows(policy, values, threshold, answers, z, q=None, strict=False):
    """The policy leaves where `values` first reach the threshold, unless that hangs on rounding."""
    if any(abs(value - threshold) < 1e-4 for value in values):
        return
    reached = (value > threshold if strict else value >= threshold for value in values)
    exit = next((i for i, yes in enumerate(reached, 1) if yes), EXITS)
    got = outcome_of(policy, z, q)
    assert got[:2] == [exit, answers[exit - 1]]
    assert got[2] == pytest.approx(values[exit - 1], abs=1e-4)


@dataclass(frozen=True)
class ShareOfVotes(Policy):
    """The majority's share of the votes, as long as it does not change."""

    name = "test-share-of-votes"
    keep, gain, accumulate = Keep.AGREE, Gain.CONFIDENCE, Accumulate.VOTES

    threshold: float

    def columns(self, num_exits):
        return Columns(thresholds=self.threshold)


@given(sample)
def test_agreement_and_confidence_are_the_majoritys(z):
    votes, values, answers, before, score = [0] * CLASSES, [], [], None, 0.0
    for i, row in enumerate(z, 1):
        y = row.index(max(row))
        votes[y] += 1
        majority = y if before is None or votes[y] >= votes[before] else before
        score = (score if majority == before else 0.0) + votes[majority] / i
        before = majority
        values.append(score)
        answers.append(majority)
    assert_follows(ShareOfVotes(1.6), values, 1.6, answers, z)


@dataclass(frozen=True, eq=False)
class Network(Policy):
    """EENet's: a network over probabilities, confidences, votes and earlier scores."""

    name = "test-network"
    keep, gain, scorer = Keep.NEVER, Gain.SCORE, ScorerKind.NETWORK

    networks: tuple[Tensor, ...]
    threshold: float

    def scorer_weights(self, exit):
        return self.networks[exit - 1]

    def columns(self, num_exits):
        return Columns(thresholds=self.threshold)


@given(sample, st.integers(0, 10**6))
def test_a_network(z, seed):
    g = torch.Generator().manual_seed(seed)
    networks = tuple(torch.randn(5, CLASSES + i + 4, generator=g) for i in range(1, EXITS + 1))
    votes, values, answers = [0] * CLASSES, [], []
    for i, (row, network) in enumerate(zip(z, networks, strict=True), 1):
        y, confidence, entropy = signals_of(row)
        votes[y] += 1
        p = torch.tensor(row, dtype=torch.float64).softmax(-1).tolist()
        features = [*p, confidence, 1 - entropy, max(votes) / i, *values]
        total = 0.0
        for *weights, bias, out in network.double().tolist():
            unit = sum(w * f for w, f in zip(weights, features, strict=True)) + bias
            total += out * (unit if unit > 0 else 0.01 * unit)
        values.append(1 / (1 + math.exp(-total)))
        answers.append(y)  # votes are counted, and do not answer
    assert_follows(Network(networks, 0.6), values, 0.6, answers, z)
