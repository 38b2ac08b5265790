"""Votes, ensembles and learned scores: every implementation against the oracle."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eefast.ops import Accumulate, ExitState, Gain, HeadWeights, Keep, Recurrence, ScorerKind
from tests.ops import oracle
from tests.ops.cases import IMPLS as ALL_IMPLS
from tests.ops.cases import (
    PARTS,
    check,
    check_parts,
    goes_together,
    keep_of,
    make_head,
    make_hidden,
    run,
)

IMPLS = ["reference", "cpp"]
EXITS = 4


KINDS = [
    (keep, gain, accumulate, kind)
    for keep in Keep
    for gain in Gain
    for accumulate in (Accumulate.NONE, Accumulate.VOTES, Accumulate.LOG_PROBABILITIES)
    for kind in ScorerKind
    if (accumulate or kind) and goes_together(Recurrence(keep, gain, False, accumulate, kind))
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
    table = torch.tensor([[0.75, 1.25, tau] for tau in (0.5, 0.1, 1.0, 0.25)])
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


@pytest.mark.parametrize("impl", [impl for impl in ALL_IMPLS if impl != "cuda"])
@pytest.mark.parametrize(("accumulate", "kind", "keep", "gain"), PARTS)
@pytest.mark.parametrize(("c", "cascade"), [(1, False), (3, True), (20, False)])
def test_accumulators_and_scorers(impl, accumulate, kind, keep, gain, c, cascade):
    check_parts(
        impl, accumulate, kind, keep, gain, samples=5, classes=c, exits=3, cascade=cascade
    )  # fmt: skip


@pytest.mark.parametrize("impl", ALL_IMPLS)
@pytest.mark.parametrize("ensemble", [False, True])
@settings(max_examples=5)
@given(classes=st.integers(1, 5), exits=st.integers(2, 4), seed=st.integers(0, 99))
def test_a_cascade_is_a_chain_of_heads(impl, ensemble, classes, exits, seed):
    """ZTW from the paper, one sample at a time; and a batch from which those that exit go.

    With the ensemble an exit's answer is not what the next head reads.
    """
    g = torch.Generator().manual_seed(seed)
    samples, tau, d = 5, 0.7, 8
    w = torch.randn(exits, classes, d, generator=g)
    u = torch.randn(exits, classes, classes, generator=g)
    hidden = torch.randn(exits, samples, d, generator=g) * 0.7
    left, answers, sure = [], [], []
    for n in range(samples):
        z, total, margin = torch.zeros(classes).double(), 0.0, math.inf
        for i in range(exits):
            z = w[i].double() @ hidden[i, n].double() + u[i].double() @ z
            total = total + z
            answer = total / (i + 1) if ensemble else z
            confidence = answer.softmax(-1).max().item()
            margin = min(margin, abs(confidence - tau))
            if confidence > tau:
                break
        left.append(i + 1)
        answers.append(answer)
        sure.append(margin > 1e-4)

    accumulate = Accumulate.LOG_PROBABILITIES if ensemble else Accumulate.NONE
    table = torch.tensor([[1.0, tau, 1.0]] * exits)
    state = state_for(samples, classes, accumulate, ScorerKind.NONE, exits)
    rows = torch.randperm(samples, generator=g)
    for exit in range(1, exits + 1):
        rows = rows[state.exit_layer[rows] == 0]
        state = run(
            impl, hidden[exit - 1, rows], HeadWeights(None, None, w[exit - 1], None, u[exit - 1]),
            table, state, exit=exit, layer=exit, keep=Keep.NEVER, gain=Gain.CONFIDENCE,
            strict=True, accumulate=accumulate, rows=rows,
        )  # fmt: skip
    sure = torch.tensor(sure)
    assert torch.equal(state.exit_layer[sure], torch.tensor(left, dtype=torch.int32)[sure])
    wanted = torch.stack(answers)[sure].float()
    torch.testing.assert_close(state.logits[sure], wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("accumulate", Accumulate)
@pytest.mark.parametrize("kind", ScorerKind)
@pytest.mark.parametrize("c", [1, 2, 31, 32, 33, 200])
def test_classes_of_all_numbers(impl, accumulate, kind, c):
    gain = Gain.SCORE if kind else Gain.CONFIDENCE
    keep = keep_of(accumulate, Keep.ALWAYS)
    if not goes_together(Recurrence(keep, gain, False, accumulate, kind)):
        pytest.skip("refused at the door: see test_arguments.py")
    state = state_for(5, c, accumulate, kind, exits=2)
    table = torch.tensor([[1.0, math.inf, 0.5], [1.0, 0.0, 0.5]])
    for exit in (1, 2):
        head = make_head(16, c + (kind is ScorerKind.ROW), seed=exit)
        state = check(
            impl, make_hidden(5, 16, seed=exit), head, table, state, exit=exit, layer=exit,
            keep=keep, gain=gain, accumulate=accumulate, **parts_of(kind, c, exit),
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
    keep = keep_of(accumulate, Keep.ALWAYS)
    if not goes_together(Recurrence(keep, gain, False, accumulate, kind)):
        pytest.skip("refused at the door: see test_arguments.py")
    table = torch.tensor([[1.0, 0.9, 0.5]] * 3)
    batch = state_for(6, 3, accumulate, kind, 3)
    alone = [state_for(1, 3, accumulate, kind, 3) for _ in range(6)]
    order = torch.tensor([4, 2, 5, 0, 3, 1])
    for exit in (1, 2, 3):
        hidden = make_hidden(6, 16, seed=exit)
        args = (make_head(16, 3 + (kind is ScorerKind.ROW), seed=exit), table)
        step = dict(
            exit=exit, layer=exit, keep=keep, gain=gain, accumulate=accumulate,
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


NAN = math.nan
MEAN, STREAK_MEAN, MOST_CONFIDENT = (
    Accumulate.MEAN,
    Accumulate.STREAK_MEAN,
    Accumulate.MOST_CONFIDENT,
)


@pytest.mark.parametrize("impl", ALL_IMPLS)
@pytest.mark.parametrize(
    ("accumulate", "first_classes", "answered"),
    [
        (MEAN, [0.25, 0.75, 0.8], 0.6),
        (MEAN, [0.25], 0.25),
        (MEAN, [0.25, NAN, 0.75], NAN),
        # Above 0.7 are the first, and then the third and fourth.
        (STREAK_MEAN, [0.1, 0.6, 0.9, 0.2], 0.55),
        (STREAK_MEAN, [0.1, 0.2, 0.9], 0.4),
        (STREAK_MEAN, [0.1, 0.9, 0.4], 0.4),
        (STREAK_MEAN, [0.1, NAN, 0.9], 0.9),
        (STREAK_MEAN, [0.1, 0.9, NAN], NAN),
        (MOST_CONFIDENT, [0.8, 0.1, 0.3], 0.1),
        (MOST_CONFIDENT, [0.6, 0.1, 0.9, 0.4], 0.1),  # the first of equal ones
        (MOST_CONFIDENT, [0.6, 0.7], 0.7),
        (MOST_CONFIDENT, [NAN, 0.4, NAN], 0.4),
        (MOST_CONFIDENT, [0.4, NAN, NAN], 0.4),
        (MOST_CONFIDENT, [NAN, NAN], NAN),
    ],
)
def test_answers_by_hand(impl, accumulate, first_classes, answered):
    """The probability of the first of two classes at every exit, and in the answer at the last."""
    exits = len(first_classes)
    table = torch.tensor([[1.0, math.inf, 0.7]] * exits)
    state = state_for(1, 2, accumulate, ScorerKind.NONE, exits)
    head = HeadWeights(None, None, torch.eye(2), None)
    keep = keep_of(accumulate, Keep.NEVER)
    for exit, p in enumerate(first_classes, 1):
        z = torch.tensor([[p, 1 - p]]).log()
        state = run(
            impl, z, head, table, state, exit=exit, layer=exit, keep=keep, gain=Gain.CONFIDENCE,
            accumulate=accumulate,
        )  # fmt: skip
        if exit < exits:
            assert state.exit_layer.item() == 0
            assert state.prediction.item() == z.argmax()
    assert state.prediction.item() == (answered < 0.5)
    got = state.logits.softmax(-1)[0, 0].item()
    assert got == pytest.approx(answered, rel=1e-6, nan_ok=True)


@pytest.mark.parametrize("impl", ALL_IMPLS)
@pytest.mark.parametrize("accumulate", [MEAN, STREAK_MEAN, MOST_CONFIDENT])
def test_who_leaves_before_the_last_exit(impl, accumulate):
    """Means answer there too; the most confident exit does not."""
    table = torch.tensor([[1.0, 2.0, 0.5]] * 3)
    state = state_for(1, 2, accumulate, ScorerKind.NONE, 3)
    head = HeadWeights(None, None, torch.eye(2), None)
    for exit, p in enumerate((0.9, 0.4), 1):
        state = run(
            impl, torch.tensor([[p, 1 - p]]).log(), head, table, state, exit=exit, layer=exit,
            keep=keep_of(accumulate, Keep.ALWAYS), gain=Gain.ONE, accumulate=accumulate,
        )  # fmt: skip
    assert state.exit_layer.item() == 2
    answered = 0.4 if accumulate is MOST_CONFIDENT else 0.65
    assert state.prediction.item() == (answered < 0.5)
    assert state.logits.softmax(-1)[0, 0].item() == pytest.approx(answered)


@pytest.mark.parametrize("impl", ALL_IMPLS)
def test_a_temperature_changes_logits_signals_and_answer_alike(impl):
    table = torch.tensor([[1.0, 0.0, 0.25]])
    got = run(
        impl, torch.tensor([[4.0, 8.0]]), HeadWeights(None, None, torch.eye(2), None), table,
        ExitState.start(1, 2, 1), exit=1, layer=1, keep=Keep.NEVER, gain=Gain.CONFIDENCE,
        accumulate=Accumulate.TEMPERATURE,
    )  # fmt: skip
    assert got.logits.tolist() == [[1, 2]]
    assert got.score.item() == pytest.approx(oracle.sigmoid(1.0))


@pytest.mark.parametrize("impl", ALL_IMPLS)
def test_a_learned_score_at_tau_is_not_above_it(impl):
    head = HeadWeights(None, None, torch.zeros(3, 2), torch.tensor([0.0, 1.0, 0.0]))
    table = torch.tensor([[2.0, math.inf, tau] for tau in (0.25, 0.5, 0.25)])
    state = ExitState.start(1, 2, 3)
    scores = []
    for exit in (1, 2, 3):
        state = run(
            impl, torch.zeros(1, 2), head, table, state, exit=exit, layer=exit,
            keep=Keep.SCORE_ABOVE, gain=Gain.SCORE_ABOVE, scorer_kind=ScorerKind.ROW,
        )  # fmt: skip
        scores.append(state.score.item())
    assert scores == [2, 0, 2]
