"""What a policy's class defines although nothing would ever use it."""

from functools import cached_property

import pytest

from eefast.policies import BEEM, Accumulate, Columns, Gain, Keep, Policy


def define(**members):
    """A policy class with these members, and all that a policy needs."""
    body = {
        "name": "test-members",
        "keep": Keep.NEVER,
        "gain": Gain.CONFIDENCE,
        "columns": lambda self, num_exits: Columns(thresholds=0.5),
        **members,
    }
    return type("Mine", (Policy,), body)


def anything(self, *signals):
    return 0.5


@pytest.mark.parametrize("name", ["score", "decide", "should_exit", "update", "exit", "forward"])
@pytest.mark.parametrize("wrap", [lambda f: f, property, staticmethod, cached_property])
def test_a_method_that_nothing_calls_is_noticed(name, wrap):
    with pytest.raises(TypeError, match=f"policy class Mine: nothing uses its '{name}'") as error:
        define(**{name: wrap(anything)})
    for kind in ("Keep.NOT_SCORE", "Gain.VOTES", "Accumulate.LOG_PROBABILITIES", "ScorerKind.ROW"):
        assert kind in str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("setings", classmethod(lambda cls, trace: []), "settings"),
        ("defaults", classmethod(lambda cls, exits: None), "default"),
        ("exit_used", anything, "exits_used"),
        ("colums", anything, "columns"),
        ("strickt", True, "strict"),
        ("accumulator", Accumulate.VOTES, "accumulate"),
    ],
)
def test_a_slip_in_a_name_is_noticed(name, value, meant):
    with pytest.raises(TypeError, match=rf"nothing uses its '{name}' \(did you mean {meant}\?\)"):
        define(**{name: value})


def test_a_kind_under_another_name_is_noticed():
    with pytest.raises(TypeError, match="nothing uses its 'adds'"):
        define(adds=Gain.VOTES)


def test_what_is_called_only_by_what_nothing_calls_is_noticed():
    def should_exit(self):
        return self.score() or self.should_exit()

    with pytest.raises(TypeError, match="nothing uses its 'should_exit'"):
        define(score=anything, should_exit=should_exit)


def test_what_a_policy_may_define_beside_its_row():
    def columns(self, num_exits):
        return Columns([self.weight(i) for i in range(num_exits)], self.threshold)

    mine = define(
        columns=columns,
        weight=lambda self, exit: 1.0,  # used inside a comprehension
        threshold=property(lambda self: 0.5),
        strict=property(lambda self: True),
        for_tweets=classmethod(lambda cls: cls()),
        GRID=(0.1, 0.2),
        paper="Doe et al., 2027",
        _helper=anything,
        Setting=type("Setting", (), {}),
    )
    assert mine().table(2)[:, 1].tolist() == [0.5, 0.5]
    assert isinstance(mine.for_tweets(), mine)


def test_what_a_parent_has_may_be_overridden():
    class Dear(BEEM):
        @classmethod
        def cost(cls, num_exits, thresholds, cost=0.5):
            return super().cost(num_exits, thresholds, cost)

    assert Dear.cost(2, 1.0).weights == (0.5, 1.0)


def test_a_policy_that_leaves_something_out_is_told_what_there_is():
    mine = type("Mine", (Policy,), {"name": "test-members-none"})
    with pytest.raises(TypeError, match="Mine has no columns, no gain, no keep") as error:
        mine()
    assert "Keep.ENTROPY_BELOW" in str(error.value)
