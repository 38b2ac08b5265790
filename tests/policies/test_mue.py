"""MuE: cosine similarity of consecutive hidden vectors, answered by one head."""

import json
import math
from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from eefast import ExitTrace, calibrate, simulate
from eefast.policies import Columns, Gain, Keep, MuE, Policy, policy_from_dict
from eefast.traces import simulate_all

EXITS = 4


def trace_of(similarity, labels=None, seed=0):
    """Similarities [L, N], with logits drawn from a generator."""
    similarity = torch.tensor(similarity)
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(*similarity.shape, 3, generator=g)
    if labels is None:
        labels = torch.randint(3, similarity.shape[1:], generator=g)
    return ExitTrace(logits, labels, similarity=similarity)


def test_the_first_similarity_above_the_threshold_by_hand():
    sequences = {
        (0.5, 0.75, 0.25, 1.0): 2,  # 0.5 is not above 0.5
        (0.875, 0.0, 0.0, 0.0): 1,
        (0.5, 0.5, 0.5, 0.0): 4,  # the last exit always answers
        (-1.0, -0.5, 0.625, 0.625): 3,
        (math.nan, 0.75, 0.0, 0.0): 2,  # NaN is above nothing
        (math.nan, math.nan, math.nan, math.nan): 4,
    }
    trace = trace_of(list(zip(*sequences, strict=True)))
    outcome = simulate(MuE(0.5), trace)
    assert outcome.exit.tolist() == list(sequences.values())
    answers = trace.logits[outcome.exit - 1, torch.arange(len(sequences))]
    assert torch.equal(outcome.prediction, answers.argmax(-1))
    assert outcome.score[0] == 0.75


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.lists(st.floats(-1, 1, width=32), min_size=4, max_size=4))
def test_the_loop_of_the_paper_over_single_samples(seed, thresholds):
    g = torch.Generator().manual_seed(seed)
    vectors = torch.randn(EXITS + 1, 8, 5, generator=g).cumsum(0)  # h_0 is the embedding
    head = torch.randn(3, 5, generator=g)
    similarity = F.cosine_similarity(vectors[1:], vectors[:-1], dim=-1)
    trace = ExitTrace(vectors[1:] @ head.T, torch.zeros(8).long(), similarity=similarity)
    each, one = simulate_all([MuE(thresholds), MuE(thresholds[0])], trace)
    for outcome, theta in ((each, thresholds), (one, thresholds[:1] * EXITS)):
        for n in range(8):
            for i in range(1, EXITS + 1):
                before, now = vectors[i - 1, n], vectors[i, n]
                if similarity[i - 1, n].item() > theta[i - 1] or i == EXITS:
                    break
            assert outcome.exit[n] == i
            assert outcome.prediction[n] == (head @ now).argmax()
            cosine = before @ now / (before.norm() * now.norm())
            assert outcome.score[n].item() == pytest.approx(cosine.item(), abs=1e-5)


def test_settings_are_quantiles_of_what_the_trace_holds():
    similarity = torch.rand(EXITS, 50, generator=torch.Generator().manual_seed(0))
    similarity[-1] = 9.0  # not a choice: the last exit answers whatever it is
    trace = trace_of(similarity.tolist())
    tried = MuE.settings(trace)
    thresholds = [policy.threshold for policy in tried]
    assert thresholds == sorted(set(thresholds))
    assert len(thresholds) == 64
    assert thresholds[0] == similarity[:-1].min()
    assert simulate(tried[-1], trace).layer_speedup == 1
    speedups = [outcome.layer_speedup for outcome in simulate_all(tried, trace)]
    assert speedups == sorted(speedups, reverse=True)
    chosen = calibrate("mue", trace, target_speedup=2)
    assert simulate(chosen, trace).layer_speedup >= 2
    assert (chosen.num_exits, chosen.num_classes) == (EXITS, 3)


def test_it_goes_through_json_and_back():
    for policy in (
        MuE(0.9),
        MuE(torch.tensor([0.5, math.inf, 0.25])),
        replace(MuE(0.5), num_exits=4),
    ):
        assert policy_from_dict(json.loads(json.dumps(policy.to_dict()))) == policy


def test_one_output_is_enough():
    MuE(0.9).check(EXITS, 1)  # no class probability is asked for


@dataclass(frozen=True)
class Halfway(Policy):
    """By similarity in the first half only: a policy of one's own."""

    name = "test-halfway"
    keep, gain = Keep.NEVER, Gain.SIMILARITY

    def columns(self, num_exits):
        half = num_exits // 2
        return Columns(2.0, [1.0] * half + [math.inf] * (num_exits - half))


def test_a_policy_of_your_own_is_one_row():
    trace = trace_of([[0.5, 0.0, 0.0], [0.0, 0.75, 0.25], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    outcome = simulate(Halfway(), trace)
    assert outcome.exit.tolist() == [1, 2, 4]  # at 2 * 0.5 >= 1
    assert outcome.score.tolist() == [1.0, 1.5, 0.0]


@dataclass(frozen=True)
class EverySecond(Halfway):
    name = "test-every-second"

    def exits_used(self, num_exits):
        return range(2, num_exits + 1, 2)


def test_what_does_not_fit_is_refused():
    bare = ExitTrace(torch.zeros(EXITS, 2, 3), torch.zeros(2).long())
    wanted = r"'mue' compares .* share_head=True.*objective='mue'.*keep=\('similarity',\)"
    with pytest.raises(ValueError, match=wanted):
        simulate(MuE(0.5), bare)
    with pytest.raises(ValueError, match=wanted):
        calibrate("mue", bare)
    with pytest.raises(ValueError, match=r"so it uses every exit.*got exits_used \[2, 4\]"):
        EverySecond().check(EXITS, 3)
    with pytest.raises(ValueError, match=r"mue: threshold must be in .*, got nan"):
        MuE(math.nan)
    with pytest.raises(ValueError, match="threshold must be a number, got 'high'"):
        MuE("high")
    with pytest.raises(ValueError, match="thresholds has 2 values, the model has 4 exits"):
        MuE([0.5, 0.5]).table(EXITS)
    with pytest.raises(ValueError, match="NaN similarity"):
        calibrate("mue", trace_of([[0.5, math.nan]] * EXITS))
