"""Policies of your own: what the recurrence can express, and what is refused."""

import math
from dataclasses import dataclass

import pytest
import torch

from eefast.policies import Accumulate, Columns, Gain, Keep, Policy, ScorerKind


def policy(**attributes):
    """A policy of these kinds, columns and scorer weights; not registered."""
    columns = attributes.pop("columns", Columns())
    weights = attributes.pop("weights", lambda exit: None)
    body = {
        "keep": Keep.NEVER,
        "gain": Gain.CONFIDENCE,
        **attributes,
        "columns": lambda self, num_exits: columns,
        "scorer_weights": lambda self, exit: weights(exit),
    }
    made = type("Made", (Unnamed,), body)
    return made()


class Unnamed(Policy):
    name = "test-unnamed"

    @property
    def keep(self):
        return Keep.NEVER

    gain = Gain.ONE

    def columns(self, num_exits):
        return Columns()


TAU = Columns(tau=0.5)


def network(exit, classes=3, units=5):
    return torch.ones(units, classes + exit + 4, dtype=torch.float32)


@pytest.mark.parametrize(
    "kinds",
    [
        dict(gain=Gain.VOTES, accumulate=Accumulate.VOTES),
        dict(gain=Gain.CONFIDENCE, accumulate=Accumulate.VOTES),
        dict(gain=Gain.CONFIDENCE, accumulate=Accumulate.LOG_PROBABILITIES),
        dict(gain=Gain.SCORE, scorer=ScorerKind.ROW),
        dict(keep=Keep.NOT_SCORE, gain=Gain.SCORE, scorer=ScorerKind.ROW),
        dict(keep=Keep.NOT_SCORE, gain=Gain.ONE, scorer=ScorerKind.ROW),
        dict(gain=Gain.SCORE, scorer=ScorerKind.NETWORK, weights=network),
        dict(keep=Keep.SCORE_ABOVE, gain=Gain.ONE, scorer=ScorerKind.ROW),
        dict(gain=Gain.SCORE_ABOVE, scorer=ScorerKind.NETWORK, weights=network),
        dict(accumulate=Accumulate.TEMPERATURE, columns=Columns(tau=0.5)),
        dict(accumulate=Accumulate.MEAN),
        dict(accumulate=Accumulate.MOST_CONFIDENT),
        dict(keep=Keep.ENTROPY_BELOW, accumulate=Accumulate.STREAK_MEAN),
        dict(keep=Keep.SCORE_ABOVE, accumulate=Accumulate.STREAK_MEAN, scorer=ScorerKind.ROW),
        dict(gain=Gain.SIMILARITY),
    ],
)
def test_what_the_recurrence_can_express(kinds):
    policy(**kinds).check(4, 3)


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        (dict(gain=Gain.SCORE), "'test-unnamed': gain=Gain.SCORE needs a scorer"),
        (dict(keep=Keep.NOT_SCORE), "keep=Keep.NOT_SCORE needs a scorer"),
        (dict(keep=Keep.SCORE_ABOVE), "keep=Keep.SCORE_ABOVE needs a scorer"),
        (dict(gain=Gain.SCORE_ABOVE), "gain=Gain.SCORE_ABOVE needs a scorer"),
        (dict(scorer=ScorerKind.ROW), r"nothing reads the score of ScorerKind.ROW: .*SCORE_ABOVE"),
        *(
            (
                dict(gain=Gain.SCORE, scorer=ScorerKind.NETWORK, accumulate=what, keep=keep),
                f"reads the vote share, which {what!s} has not",
            )
            for what, keep in (
                (Accumulate.MEAN, Keep.NEVER),
                (Accumulate.STREAK_MEAN, Keep.ENTROPY_BELOW),
                (Accumulate.MOST_CONFIDENT, Keep.NEVER),
            )
        ),
        *(
            (dict(accumulate=Accumulate.STREAK_MEAN, keep=keep), f"needs a keep .* got {keep!s}")
            for keep in (Keep.NEVER, Keep.AGREE, Keep.ALWAYS)
        ),
        (
            dict(keep=Keep.ENTROPY_BELOW, accumulate=Accumulate.TEMPERATURE, columns=TAU),
            "tau is the 1 / temperature of Accumulate.TEMPERATURE, and Keep.ENTROPY_BELOW has none",
        ),
        (
            dict(
                gain=Gain.SCORE_ABOVE,
                accumulate=Accumulate.TEMPERATURE,
                scorer=ScorerKind.ROW,
                columns=TAU,
            ),
            "tau is the 1 / temperature of Accumulate.TEMPERATURE, and Gain.SCORE_ABOVE has none",
        ),
        (
            dict(accumulate=Accumulate.TEMPERATURE, columns=Columns(tau=[1, 1, 0, 1])),
            "tau is 1 / temperature and must be above 0",
        ),
        (dict(gain=Gain.VOTES), "gain=Gain.VOTES needs Accumulate.VOTES"),
        (
            dict(
                gain=Gain.SCORE,
                scorer=ScorerKind.NETWORK,
                accumulate=Accumulate.LOG_PROBABILITIES,
                weights=network,
            ),
            "reads the vote share, which Accumulate.LOG_PROBABILITIES has not",
        ),
        (
            dict(gain=Gain.VOTES, accumulate=Accumulate.LOG_PROBABILITIES),
            "gain=Gain.VOTES needs Accumulate.VOTES",
        ),
        (
            dict(gain=Gain.SCORE, scorer=ScorerKind.NETWORK),
            r"scorer_weights\(1\) must be a tensor .* got NoneType",
        ),
        (dict(weights=network), r"scorer_weights\(1\) must be .* None otherwise, got Tensor"),
        (
            dict(
                gain=Gain.SCORE,
                scorer=ScorerKind.NETWORK,
                weights=lambda exit: network(exit, classes=2),
            ),
            r"scorer_weights\(1\) must be \[H, 8\] for 3 classes, got \[5, 7\]",
        ),
        (
            dict(
                gain=Gain.SCORE,
                scorer=ScorerKind.NETWORK,
                weights=lambda exit: network(1),  # exit 2 has one earlier score more
            ),
            r"scorer_weights\(2\) must be \[H, 9\]",
        ),
        (
            dict(
                gain=Gain.SCORE,
                scorer=ScorerKind.NETWORK,
                weights=lambda exit: network(exit).double(),
            ),
            "must be finite and float32, got torch.float64",
        ),
        (
            dict(
                gain=Gain.SCORE,
                scorer=ScorerKind.NETWORK,
                weights=lambda exit: network(exit) * math.nan,
            ),
            "must be finite and float32",
        ),
        (
            dict(accumulate=Accumulate.LOG_PROBABILITIES, columns=Columns(tau=[1, 1, -1, 1])),
            "tau weighs exits and must be 0 or more",
        ),
        (dict(gain=Gain.SIMILARITY, keep=Keep.ALWAYS), "SIMILARITY .* goes with Keep.NEVER"),
        (dict(gain=Gain.SIMILARITY, accumulate=Accumulate.VOTES), "SIMILARITY .* Accumulate.NONE"),
        (dict(columns=Columns(weights=[1, math.inf, 1, 1])), "weights must be finite"),
        (dict(columns=Columns(weights=1e39)), "weights must be finite in float32, got 1e"),
        (dict(columns=Columns(tau=-math.inf)), "tau must be finite"),
        (dict(columns=Columns(tau=math.nan)), "tau must be numbers, got nan"),
        (dict(columns=Columns(weights=math.nan)), "weights must be numbers, got nan"),
        (dict(columns=Columns(weights="1")), "weights must be a number or one per exit, got '1'"),
        (dict(columns=Columns(thresholds=None)), "thresholds must be a number .* got None"),
        (dict(columns=Columns(thresholds=10**400)), "thresholds must be a number .* got 1000"),
    ],
)
def test_what_it_cannot_is_refused(kinds, words):
    with pytest.raises(ValueError, match=words):
        policy(**kinds).check(4, 3)


@pytest.mark.parametrize(
    ("what", "kind"),
    [("keep", Keep), ("gain", Gain), ("accumulate", Accumulate), ("scorer", ScorerKind)],
)
def test_a_kind_of_your_own_gets_the_list_of_those_there_are(what, kind):
    for mine in ("mine", 1, lambda self: "mine"):
        with pytest.raises(
            TypeError, match=f"'test-unnamed': {what} must be a {kind.__name__}, "
        ) as error:
            policy(**{what: mine}).check(4, 3)
        assert all(f"{kind.__name__}.{member.name}" in str(error.value) for member in kind)


def test_columns_are_columns():
    for columns in (None, (1.0, 2.0, 3.0), 1.0):
        with pytest.raises(TypeError, match=r"test-unnamed: columns must give Columns\(...\), got"):
            policy(columns=columns).check(4, 3)


def test_thresholds_may_be_infinite():
    table = policy(columns=Columns(thresholds=[math.inf, -math.inf, 1, 0])).table(4)
    assert table[:, 1].tolist() == [math.inf, -math.inf, 1, 0]


def test_only_exits_that_are_used_need_a_scorer():
    @dataclass(frozen=True)
    class Late(Unnamed):
        name = "test-late"
        gain = Gain.SCORE
        scorer = ScorerKind.NETWORK

        def exits_used(self, num_exits):
            return range(2, num_exits + 1)

        def scorer_weights(self, exit):
            return network(exit) if exit > 1 else None

    Late().check(4, 3)
