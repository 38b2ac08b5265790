"""Signals and recurrence against the oracle, for every keep and gain kind."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eefast.ops import (
    Accumulate,
    ExitState,
    Gain,
    Keep,
    Recurrence,
    ScorerKind,
    advance,
    reached,
    signals,
)
from tests.ops import oracle
from tests.ops.cases import goes_together
from tests.ops.oracle import advance_one, signals_of


def near_tau(answer, values, i, tau, recurrence):
    """Whether a comparison with tau may go either way."""
    if recurrence.accumulate == Accumulate.VOTES:
        share = values.votes[i].max() / values.votes[i].sum()
        return abs(share - tau) < 1e-5
    now = signals(answer)
    return min(abs(now.confidence - tau), abs(now.entropy - tau)) < 1e-5


finite_logits = st.floats(-1e4, 1e4, width=32)


@given(st.lists(finite_logits, min_size=1, max_size=9))
def test_signals_match_the_oracle(z):
    got = signals(torch.tensor(z))
    prediction, confidence, entropy = signals_of(z)
    assert got.prediction.item() == prediction
    # float32: one rounding per class in the sum, and one each in exp and log
    assert got.confidence.item() == pytest.approx(confidence, abs=2e-6)
    assert got.entropy.item() == pytest.approx(entropy, abs=4e-6)


@given(st.lists(finite_logits, min_size=2, max_size=6), st.floats(-100, 100, width=32))
def test_signals_do_not_change_when_all_logits_shift(z, shift):
    # Only shifts that are exact in float32: rounding of z + shift is not under test.
    moved = torch.tensor(z) + shift
    if not torch.equal(moved - shift, torch.tensor(z)):
        return
    before, after = signals(torch.tensor(z)), signals(moved)
    torch.testing.assert_close(before.confidence, after.confidence)
    torch.testing.assert_close(before.entropy, after.entropy, atol=1e-6, rtol=1e-5)


@given(
    st.permutations(list(range(5))), st.lists(finite_logits, min_size=5, max_size=5, unique=True)
)
def test_signals_follow_a_permutation_of_the_classes(order, z):
    plain, permuted = signals(torch.tensor(z)), signals(torch.tensor(z)[order])
    assert order[permuted.prediction.item()] == plain.prediction.item()
    torch.testing.assert_close(plain.confidence, permuted.confidence)
    torch.testing.assert_close(plain.entropy, permuted.entropy, atol=1e-6, rtol=1e-5)


def test_ties_go_to_the_lowest_class():
    assert signals(torch.tensor([1.0, 3.0, 3.0, 0.0])).prediction == 1


def test_uniform_and_certain_logits():
    uniform, certain = signals(torch.zeros(7)), signals(torch.tensor([0.0, 1e4]))
    assert uniform.entropy == pytest.approx(1)
    assert uniform.confidence == pytest.approx(1 / 7)
    assert (certain.entropy, certain.confidence) == (0, 1)


def test_minus_infinity_is_an_impossible_class():
    got = signals(torch.tensor([0.0, 0.0, -math.inf]))
    assert got.confidence == pytest.approx(0.5)
    assert got.entropy == pytest.approx(math.log(2) / math.log(3))


def test_a_nan_logit_makes_confidence_and_entropy_nan():
    got = signals(torch.tensor([1.0, math.nan, 2.0]))
    assert got.prediction == 1
    assert got.confidence.isnan()
    assert got.entropy.isnan()


def test_one_class_is_certain():
    got = signals(torch.tensor([[3.0], [-2.0]]))
    assert got.confidence.tolist() == [1, 1]
    assert got.entropy.tolist() == [0, 0]


@pytest.mark.parametrize("gain", [gain for gain in Gain if gain is not Gain.SIMILARITY])
@settings(max_examples=50)
@given(
    keep=st.sampled_from(Keep),
    score=st.floats(-100, 100, width=32),
    agree=st.booleans(),
    z=st.lists(st.floats(-8, 8, width=32), min_size=3, max_size=3),
    weight=st.floats(0, 3, width=32),
    tau=st.floats(0, 1, width=32),
    q=st.floats(0, 1, width=32),
    votes=st.integers(1, 9),
)
def test_one_step_of_every_kind(keep, gain, score, agree, z, weight, tau, q, votes):
    now = signals(torch.tensor([z]))
    known = (now.prediction.item(), now.confidence.item(), now.entropy.item())
    wanted = advance_one(score, agree, known, keep, gain, weight, tau, q, votes)
    got = advance(
        torch.tensor([score]), torch.tensor([agree]), now,
        keep=keep, gain=gain, weight=torch.tensor(weight), tau=torch.tensor(tau),
        q=torch.tensor([q]), votes=torch.tensor([float(votes)]),
    )  # fmt: skip
    assert got.item() == pytest.approx(wanted, rel=1e-6, abs=1e-5)


@pytest.mark.parametrize(
    "gain", [Gain.AGREE, Gain.ENTROPY_BELOW, Gain.CONFIDENCE_ABOVE, Gain.SCORE_ABOVE]
)
@pytest.mark.parametrize("weight", [math.inf, math.nan])
def test_an_indicator_that_does_not_hold_adds_nothing_whatever_the_weight(gain, weight):
    now = signals(torch.tensor([[0.0, 0.0]]))  # entropy 1, confidence 0.5
    tau = 0.5 if gain is Gain.ENTROPY_BELOW else 0.6
    got = advance(
        torch.tensor([0.25]), torch.tensor([False]), now,
        keep=Keep.ALWAYS, gain=gain, weight=weight, tau=tau, q=torch.tensor([0.6]),
    )  # fmt: skip
    assert got.item() == 0.25


def test_a_dropped_score_is_forgotten_even_if_it_was_nan():
    now = signals(torch.tensor([[0.0, 1.0]]))
    got = advance(
        torch.tensor([math.nan]), torch.tensor([False]), now,
        keep=Keep.AGREE, gain=Gain.CONFIDENCE, weight=1.0, tau=0.0,
    )  # fmt: skip
    torch.testing.assert_close(got, now.confidence)


def test_reached_is_strict_only_where_asked_and_never_for_nan():
    score = torch.tensor([0.5, 1.0, 1.5, math.nan])
    assert reached(score, 1.0, strict=False).tolist() == [False, True, True, False]
    assert reached(score, 1.0, strict=True).tolist() == [False, False, True, False]


KINDS = st.builds(
    Recurrence,
    st.sampled_from(Keep),
    st.sampled_from(Gain),
    st.booleans(),
    st.sampled_from(Accumulate),
    st.sampled_from(ScorerKind),
).filter(goes_together)


@given(recurrence=KINDS, seed=st.integers(0, 2**31), exits=st.integers(1, 4))
def test_the_loop_over_exits_is_that_of_single_samples(recurrence, seed, exits):
    n, c, g = 3, 3, torch.Generator().manual_seed(seed)
    logits, row = torch.randn(exits, n, c, generator=g) * 3, torch.randn(exits, n, generator=g)
    table = torch.rand(exits, 3, generator=g)
    values = recurrence.start(n, c, exits)
    network = recurrence.scorer == ScorerKind.NETWORK
    samples = [
        oracle.Sample(ExitState.start(1, c, exits, votes=recurrence.uses_votes, memory=True), 0)
        for _ in range(n)
    ]
    for exit in range(1, exits + 1):
        scorer = torch.randn(4, c + exit + 4, generator=g) if network else None
        q = row[exit - 1].sigmoid() if recurrence.scorer == ScorerKind.ROW else None
        values, answer, leaves = recurrence.step(
            values, logits[exit - 1], table, exit, q=q, scorer=scorer
        )
        for i, sample in enumerate(samples):
            wanted = sample.meet(
                logits[exit - 1, i].tolist(), row[exit - 1, i].item(), table.tolist(), exit,
                recurrence.keep, recurrence.gain, recurrence.accumulate, recurrence.scorer,
                None if scorer is None else scorer.tolist(),
            )  # fmt: skip
            # An indicator that rounding may flip makes everything after it unsure.
            sample.unsure = getattr(sample, "unsure", False) or near_tau(
                answer[i], values, i, table[exit - 1, 2], recurrence
            )
            assert values.prediction[i].item() == sample.prediction
            assert answer[i].tolist() == pytest.approx(wanted, rel=1e-5, abs=1e-5)
            if not sample.unsure:
                assert values.score[i].item() == pytest.approx(sample.score, rel=1e-4, abs=1e-4)
    assert leaves.all()


def test_the_default_dtype_and_device_do_not_matter():
    recurrence = Recurrence(Keep.NOT_SCORE, Gain.SCORE, False, Accumulate.VOTES, ScorerKind.NETWORK)
    table, z = torch.tensor([[1.0, 0.5, 0.1]] * 2), torch.randn(2, 5, 3)
    scorers = [torch.randn(4, 3 + exit + 4) for exit in (1, 2)]

    def play():
        values = recurrence.start(5, 3, 2)
        for exit in (1, 2):
            values, answer, leaves = recurrence.step(
                values, z[exit - 1], table, exit, scorer=scorers[exit - 1]
            )
        return [t for t in (*values, answer, leaves) if t is not None]

    plain = play()
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        other = play()
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    for ours, theirs in zip(plain, other, strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)
