"""Each policy against its paper's rule written out for one sample, and the shared machinery."""

import json
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eefast import ExitTrace, simulate
from eefast.policies import (
    BEEM,
    PABEE,
    PCEE,
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
    policy_class,
    policy_from_dict,
)

EVERY = [
    BEEM.cost(4, 1.5),
    BEEM.accuracy([0.5, 0.6, 0.7, 0.8], [1.0, math.inf, 0.5, 0.0]),
    PABEE(2),
    PCEE(2, 0.4),
    PCEE(1, 0.9, "confidence"),
    Entropy(0.3),
    Confidence([0.9, 0.8, 0.7, 0.6]),
    Budgeted(3),
    Never(),
    Voting(3, 0.25),
    Voting([1, 2, 2.5, 3]),
    BERxiT(0.8),
]


@st.composite
def sample(draw):
    """Predictions and signals of one sample at four exits, apart from the thresholds used below."""
    z = torch.tensor(
        draw(
            st.lists(
                st.lists(st.floats(-4, 4, width=16), min_size=3, max_size=3),
                min_size=4,
                max_size=4,
            )
        )
    )
    p = z.double().softmax(-1)
    entropy = -(p * p.log()).sum(-1) / math.log(3)
    confidence = p.amax(-1)
    return z, z.argmax(-1).tolist(), confidence.tolist(), entropy.tolist()


def exit_of(policy, z):
    return simulate(policy, ExitTrace(z[:, None], torch.zeros(1, dtype=torch.int64))).exit.item()


def first(conditions):
    return next((i for i, exits in enumerate(conditions, 1) if exits), 4)


def close(values, threshold):
    return any(abs(value - threshold) < 1e-5 for value in values)


@given(sample())
def test_beem_is_equation_2(case):
    z, y, c, _ = case
    w, alpha = [0.25, 0.5, 0.75, 1.0], 0.9
    s, scores = 0.0, []
    for i in range(4):
        s = s + w[i] * c[i] if i and y[i] == y[i - 1] else w[i] * c[i]
        scores.append(s)
    if not close(scores, alpha):
        assert exit_of(BEEM(w, alpha), z) == first(s >= alpha for s in scores)


@given(sample(), st.integers(1, 4))
def test_pabee_counts_agreements(case, patience):
    z, y, *_ = case
    streaks = [0]
    for i in range(1, 4):
        streaks.append(streaks[-1] + 1 if y[i] == y[i - 1] else 0)
    assert exit_of(PABEE(patience), z) == first(n >= patience for n in streaks)


@given(sample(), st.integers(1, 4))
def test_pcee_counts_confident_exits_whatever_they_predict(case, patience):
    z, _, c, h = case
    for policy, confident in (
        (PCEE(patience, 0.6), [value < 0.6 for value in h]),
        (PCEE(patience, 0.7, "confidence"), [value > 0.7 for value in c]),
    ):
        if close(h, 0.6) or close(c, 0.7):
            return
        streaks = [0]
        for yes in confident:
            streaks.append(streaks[-1] + 1 if yes else 0)
        assert exit_of(policy, z) == first(n >= patience for n in streaks[1:])


@given(sample())
def test_thresholds_on_confidence_and_entropy(case):
    z, _, c, h = case
    if not close(c, 0.7):
        assert exit_of(Confidence(0.7), z) == first(value >= 0.7 for value in c)
    if not close(h, 0.5):
        assert exit_of(Entropy(0.5), z) == first(value < 0.5 for value in h)


def test_the_earliest_exits_are_the_papers():
    agree_and_sure = torch.tensor([[9.0, 0.0, 0.0]] * 4)
    assert exit_of(PABEE(2), agree_and_sure) == 3
    assert exit_of(PABEE(0), agree_and_sure) == 4  # patience 0 runs all layers
    assert exit_of(PCEE(2, 0.5), agree_and_sure) == 2


def test_equality_exits_at_confidence_but_not_at_entropy():
    even = torch.zeros(4, 1, 2)  # confidence 1/2, normalised entropy 1, both exactly
    trace = ExitTrace(even, torch.zeros(1, dtype=torch.int64))
    assert simulate(Confidence(0.5), trace).exit.item() == 1
    assert simulate(Entropy(1.0), trace).exit.item() == 4


@pytest.mark.parametrize("exit", [1, 3, 4])
def test_budgeted_and_never_look_at_one_exit_only(exit):
    z = torch.full((4, 2, 3), math.nan)
    z[exit - 1] = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    policy = Never() if exit == 4 else Budgeted(exit)
    outcome = simulate(policy, ExitTrace(z, torch.tensor([1, 2])))
    assert outcome.exit.tolist() == [exit, exit]
    assert outcome.accuracy == 1
    assert list(policy.exits_used(4)) == [exit]


@pytest.mark.parametrize("policy", EVERY, ids=repr)
def test_to_dict_goes_through_json_and_back(policy):
    described = json.loads(json.dumps(policy.to_dict(), allow_nan=False))
    assert policy_from_dict(described) == policy


@pytest.mark.parametrize(
    "name",
    ["beem", "pabee", "pcee", "entropy", "confidence", "budgeted", "eeic", "berxit"],
)
@pytest.mark.parametrize("exits", [1, 2, 6, 12, 24])
def test_defaults_fit_any_number_of_exits(name, exits):
    policy = policy_class(name).default(exits)
    assert policy.table(exits).shape == (exits, 3)
    policy.check(exits, 2)


def test_scalars_and_one_number_per_exit_are_the_same():
    assert torch.equal(BEEM(0.5, 1.0).table(3), BEEM([0.5] * 3, torch.ones(3)).table(3))


def test_a_policy_of_your_own_takes_a_few_lines():
    @dataclass(frozen=True)
    class ConfidentPatience(Policy):
        """Exit after `patience` confident exits in a row that all predict the same."""

        name = "test-confident-patience"
        keep, gain = Keep.AGREE, Gain.CONFIDENCE_ABOVE
        patience: int = 2
        confidence: float = 0.9

        def columns(self, num_exits):
            return Columns(thresholds=self.patience, tau=self.confidence)

    sure, unsure = [9.0, 0.0], [0.2, 0.0]
    assert exit_of(ConfidentPatience(), torch.tensor([sure, unsure, sure, sure])) == 3
    assert policy_from_dict(ConfidentPatience(3).to_dict()) == ConfidentPatience(3)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: BEEM(-1.0, 1.0), "weights must be in"),
        (lambda: BEEM(math.nan, 1.0), "weights must be in"),
        (lambda: BEEM([1.0, -0.1], 1.0), "weights must be in"),
        (lambda: BEEM(1.0, math.nan), "thresholds must be in"),
        (lambda: PABEE("2"), "patience must be a whole number, 0 or more; got '2'"),
        (lambda: PABEE(2.5), "patience must be a whole number"),
        (lambda: BEEM("1", 1.0), "weights must be a number, got '1'"),
        (lambda: BEEM([1.0, True], 1.0), "weights must be a number, got True"),
        (lambda: BEEM([[1.0]], 1.0), r"weights must be a number, got \[1.0\]"),
        (lambda: BEEM(1.0, None), "thresholds must be a number, got None"),
        (lambda: BEEM.cost(0, 1.0), "beem: num_exits must be a whole number, 1 or more; got 0"),
        (lambda: BEEM.cost(4, 1.0, "0.1"), "beem: cost must be a number, got '0.1'"),
        (lambda: BEEM.cost(4, 1.0, math.nan), "beem: cost must be in"),
        (lambda: PABEE(True), "patience must be a whole number"),
        (lambda: PABEE(10**400), r"patience must be at most 2\^24, got 1000"),
        (lambda: Confidence(10**400), "threshold must be a number, got 1000"),
        (lambda: Confidence(1j), "threshold must be a number, got 1j"),
        (lambda: Entropy(np.bool_(True)), "threshold must be a number, got True|np.True_"),
        (lambda: Voting(True), "threshold must be a number, got True"),
        (lambda: PABEE(-1), "patience must be a whole number"),
        (lambda: PCEE(0, 0.5), "patience must be a whole number"),
        (lambda: PCEE(1, 1.5), "threshold must be in"),
        (lambda: PCEE(1, 0.5, "variance"), "'entropy' or 'confidence', got 'variance'"),
        (lambda: Budgeted(0), "exit must be a whole number, 1 or more"),
        (lambda: Budgeted(5).table(4), "exit 5 of a model with 4 exits"),
        (lambda: BEEM([0.1, 0.2], 1.0).table(3), "weights has 2 values, the model has 3 exits"),
        (lambda: policy_class("hope"), "unknown policy 'hope'; there are .*'beem'"),
        (lambda: policy_from_dict({"policy": "pabee", "hurry": 1}), "pabee.*hurry"),
        (lambda: policy_from_dict({}), "unknown policy"),
        (lambda: policy_from_dict({"policy": ["pabee"]}), "unknown policy"),
        (lambda: policy_from_dict({"policy": "pabee", 1: 2}), "'pabee' cannot be made from"),
        (lambda: policy_from_dict({"policy": "pabee", "patience": {}}), "patience must be a whole"),
        (
            lambda: policy_from_dict({**PABEE(1).to_dict(), "num_exits": "4"}).check(4, 2),
            "calibrated for '4' exits, got 4",
        ),
        (lambda: Entropy(0.5).check(4, 1), r"regression.*use PABEE\(patience, tolerance\), Never"),
        (lambda: BEEM(1.0, 1.0).check(4, 1), "decides by class probabilities"),
        (lambda: Voting(1).check(4, 1), "decides by class probabilities"),
        (lambda: PABEE(1).check(4, 1), "'pabee' with one output .* tau, which must be greater"),
        (lambda: PABEE(1, -0.1), "tolerance must be in"),
        (lambda: replace(PABEE(1), num_exits=3).check(4, 2), "calibrated for 3 exits, got 4"),
        (lambda: Voting(-1), "threshold must be in"),
        (lambda: Voting(2, 1.0), r"exponent must be in \[0, 1\], got 1.0"),
        (lambda: BERxiT("high"), "threshold must be a number"),
        (lambda: BERxiT(0.5).check(4, 3, learned_scores=False), "'berxit' reads learned scores"),
        (lambda: replace(PABEE(1), num_classes=3).check(4, 2), "calibrated for 3 classes, got 2"),
    ],
)
def test_errors_name_the_argument(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("policy", [Never(), Budgeted(2), PABEE(1, 0.1)])
def test_one_output_suits_fixed_depths_and_agreement(policy):
    policy.check(4, 1)


def test_a_policy_without_default_setting_says_so():
    class Numbered(Policy):
        name = "test-numbered"
        keep, gain = Keep.ALWAYS, Gain.CONFIDENCE

        def __init__(self, number):
            pass

        def columns(self, num_exits):
            return Columns()

    with pytest.raises(
        ValueError, match=r"policy 'test-numbered' has no default setting: .*number"
    ):
        policy_class("test-numbered").default(4)
    assert Numbered(1).columns(4) == Columns()


def test_a_policy_needs_a_name_of_its_own():
    with pytest.raises(ValueError, match="a policy named 'pabee' already"):

        class Other(PABEE):
            name = "pabee"

    # A class called alike in another module is another policy, not a notebook cell run twice.
    with pytest.raises(ValueError, match=r"already: eefast\.policies\.pabee\.PABEE"):
        type("PABEE", (PABEE,), {"name": "pabee", "__module__": "elsewhere"})

    class Careful(PABEE):
        pass

    with pytest.raises(ValueError, match="Careful needs a name of its own"):
        Careful(1).to_dict()
    with pytest.raises(TypeError, match="Nameless needs a name"):

        class Nameless(Policy):
            pass


def test_kinds_must_be_kinds():
    class Swapped(Policy):
        name = "test-swapped"
        keep, gain = Gain.CONFIDENCE, Keep.AGREE

        def columns(self, num_exits):
            return Columns(thresholds=math.nan)

    with pytest.raises(TypeError, match=r"keep must be a Keep, got <Gain.CONF"):
        Swapped().check(4, 3)
    with pytest.raises(ValueError, match="thresholds must be numbers, got nan"):
        Swapped().table(4)
    with pytest.raises(TypeError, match="simulate takes a Policy and an ExitTrace, got str"):
        simulate("pabee", None)


@pytest.mark.parametrize("description", [None, 5, "pabee", [PABEE(1)]])
def test_a_description_is_a_dictionary(description):
    with pytest.raises(TypeError, match="a policy is described by a dictionary, got"):
        policy_from_dict(description)
