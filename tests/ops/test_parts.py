"""Votes, ensembles and learned scores: every implementation against the oracle."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eefast.ops import Accumulate, ExitState, Gain, HeadWeights, Keep, Recurrence, ScorerKind
from tests.ops import oracle
from tests.ops.cases import check, make_head, make_hidden, run

IMPLS = ["reference", "cpp"]
EXITS = 4


def fits(keep, gain, accumulate, kind):
    try:
        Recurrence(keep, gain, False, accumulate, kind).check()
    except ValueError:
        return False
    return True


KINDS = [
    (keep, gain, accumulate, kind)
    for keep in Keep
    for gain in Gain
    for accumulate in Accumulate
    for kind in ScorerKind
    if (accumulate or kind) and fits(keep, gain, accumulate, kind)
]


def state_for(samples, classes, accumulate, kind, exits=EXITS):
    votes = Recurrence(0, 0, False, accumulate, kind).uses_votes
    return ExitState.start(samples, classes, exits, votes=votes, memory=bool(kind))


def make_scorer(classes, exit, units=5, seed=3):
    g = torch.Generator().manual_seed(seed + exit)
    return torch.randn(units, classes + exit + 4, generator=g)


def parts_of(kind, classes, exit):
    scorer = make_scorer(classes, exit) if kind is ScorerKind.NETWORK else None
    return dict(scorer_kind=kind, scorer=scorer)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(("keep", "gain", "accumulate", "kind"), KINDS)
def test_every_kind_over_all_exits(impl, keep, gain, accumulate, kind):
    samples, c = 12, 3
    table = torch.tensor([[0.75, 1.25, tau] for tau in (0.5, 0.0, 1.0, 0.25)])
    state = state_for(samples, c, accumulate, kind)
    for exit in range(1, EXITS + 1):
        hidden = make_hidden(samples, 16, seed=exit)
        head = make_head(16, c + (kind is ScorerKind.ROW), seed=exit)
        state = check(
            impl, hidden, head, table, state, exit=exit, layer=exit, keep=keep, gain=gain,
            accumulate=accumulate, **parts_of(kind, c, exit),
        )  # fmt: skip
    assert (state.exit_layer > 0).all()
    assert torch.equal(state.logits.argmax(-1), state.prediction.long())


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("accumulate", Accumulate)
@pytest.mark.parametrize("kind", ScorerKind)
@pytest.mark.parametrize("c", [1, 2, 31, 32, 33, 200])
def test_classes_of_all_numbers(impl, accumulate, kind, c):
    gain = Gain.SCORE if kind else Gain.CONFIDENCE
    if not fits(Keep.ALWAYS, gain, accumulate, kind):
        pytest.skip("refused at the door: see test_arguments.py")
    state = state_for(5, c, accumulate, kind, exits=2)
    table = torch.tensor([[1.0, math.inf, 0.5], [1.0, 0.0, 0.5]])
    for exit in (1, 2):
        head = make_head(16, c + (kind is ScorerKind.ROW), seed=exit)
        state = check(
            impl, make_hidden(5, 16, seed=exit), head, table, state, exit=exit, layer=exit,
            keep=Keep.ALWAYS, gain=gain, accumulate=accumulate, **parts_of(kind, c, exit),
        )  # fmt: skip


@pytest.mark.parametrize("impl", IMPLS)
@given(classes=st.lists(st.integers(0, 3), min_size=1, max_size=9))
def test_the_majority_is_the_class_with_most_votes_and_the_latest_of_tied_ones(impl, classes):
    table = torch.tensor([[1.0, math.inf, 0.0]] * (len(classes) + 1))
    state, voted = state_for(1, 4, Accumulate.VOTES, ScorerKind.NONE, len(table)), []
    head = HeadWeights(None, None, torch.eye(4), None)
    for exit, vote in enumerate(classes, 1):
        z = torch.nn.functional.one_hot(torch.tensor([vote]), 4).float()
        state = run(
            impl, z, head, table, state, exit=exit, layer=exit,
            keep=Keep.NEVER, gain=Gain.VOTES, accumulate=Accumulate.VOTES,
        )  # fmt: skip
        voted.append(vote)
        counts = [voted.count(c) for c in range(4)]
        tied = [c for c in range(4) if counts[c] == max(counts)]
        latest = next(c for c in reversed(voted) if c in tied)
        assert state.votes[0].tolist() == counts
        assert state.prediction.item() == latest
        assert state.score.item() == max(counts)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("accumulate", Accumulate)
@pytest.mark.parametrize("kind", ScorerKind)
def test_a_row_alone_gives_what_it_gives_in_a_shuffled_batch(impl, accumulate, kind):
    gain = Gain.SCORE if kind else Gain.CONFIDENCE
    if not fits(Keep.ALWAYS, gain, accumulate, kind):
        pytest.skip("refused at the door: see test_arguments.py")
    table = torch.tensor([[1.0, 0.9, 0.5]] * 3)
    batch = state_for(6, 3, accumulate, kind, 3)
    alone = [state_for(1, 3, accumulate, kind, 3) for _ in range(6)]
    order = torch.tensor([4, 2, 5, 0, 3, 1])
    for exit in (1, 2, 3):
        hidden = make_hidden(6, 16, seed=exit)
        args = (make_head(16, 3 + (kind is ScorerKind.ROW), seed=exit), table)
        step = dict(
            exit=exit, layer=exit, keep=Keep.ALWAYS, gain=gain, accumulate=accumulate,
            **parts_of(kind, 3, exit),
        )  # fmt: skip
        batch = run(impl, hidden[order], *args, batch, rows=order, **step)
        alone = [run(impl, hidden[n : n + 1], *args, alone[n], **step) for n in range(6)]
    for name in ("score", "prediction", "exit_layer", "logits", "votes", "memory"):
        if getattr(batch, name) is not None:
            together = torch.cat([getattr(state, name) for state in alone])
            torch.testing.assert_close(getattr(batch, name), together)


@pytest.mark.parametrize("impl", IMPLS)
def test_a_row_scorer_needs_no_memory_and_is_never_a_class(impl):
    head = HeadWeights(None, None, torch.zeros(3, 4), torch.tensor([0.0, 1.0, 9.0]))
    table = torch.tensor([[1.0, 0.5, 0.0]])
    got = run(
        impl, torch.zeros(2, 4), head, table, ExitState.start(2, 2, 1), exit=1, layer=1,
        keep=Keep.NEVER, gain=Gain.SCORE, scorer_kind=ScorerKind.ROW,
    )  # fmt: skip
    assert got.prediction.tolist() == [1, 1]
    assert got.logits.tolist() == [[0, 1], [0, 1]]
    assert got.score.tolist() == pytest.approx([oracle.sigmoid(9.0)] * 2)


@pytest.mark.parametrize("impl", IMPLS)
def test_a_tau_of_zero_leaves_infinite_logits_out_of_the_ensemble(impl):
    bias = torch.tensor([0.0, -math.inf])
    head = HeadWeights(None, None, torch.zeros(2, 4), bias)
    table = torch.tensor([[1.0, math.inf, 0.0], [1.0, math.inf, 1.0]])
    state = state_for(1, 2, Accumulate.LOG_PROBABILITIES, ScorerKind.NONE, 2)
    got = run(
        impl, torch.zeros(1, 4), head, table, state, exit=1, layer=1, keep=Keep.NEVER,
        gain=Gain.CONFIDENCE, accumulate=Accumulate.LOG_PROBABILITIES,
    )  # fmt: skip
    assert got.votes.tolist() == [[0, 0]]
    assert got.score.item() == 1
