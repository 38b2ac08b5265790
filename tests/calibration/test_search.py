"""`calibrate`, and the choice among settings."""

import math
from dataclasses import dataclass, fields, replace

import pytest
import torch

from eefast import ExitTrace, calibrate, simulate
from eefast.calibration import Costs
from eefast.policies import (
    BEEM,
    PABEE,
    PCEE,
    BERxiT,
    Budgeted,
    Columns,
    Confidence,
    ElasticBERT,
    Entropy,
    Gain,
    Keep,
    Policy,
    Voting,
)
from tests.traces.made import learned_trace, regression_trace

SEARCHED = ["pabee", "pcee", "entropy", "confidence", "eeic", "berxit", "budgeted"]


@dataclass(frozen=True)
class ConfidentPatience(Policy):
    """A policy that eefast does not know: confident exits that agree."""

    name = "test-search-confident-patience"
    keep, gain = Keep.AGREE, Gain.CONFIDENCE_ABOVE
    patience: int = 2
    confidence: float = 0.9

    @classmethod
    def settings(cls, trace):
        return [cls(t, c) for t in range(1, trace.num_exits) for c in (0.5, 0.7)]

    def columns(self, num_exits):
        return Columns(thresholds=self.patience, tau=self.confidence)


@pytest.mark.parametrize("policy", [*SEARCHED, ConfidentPatience])
def test_the_most_accurate_setting_and_of_those_the_fastest(policy):
    trace = learned_trace()
    chosen = calibrate(policy, trace)
    space = type(chosen).settings(trace)
    assert replace(chosen, num_exits=None, num_classes=None) in space
    assert (chosen.num_exits, chosen.num_classes) == (5, 3)
    outcomes = [(s.accuracy, s.layer_speedup) for s in (simulate(p, trace) for p in space)]
    chosen = simulate(chosen, trace)
    assert (chosen.accuracy, chosen.layer_speedup) == max(outcomes)


@pytest.mark.parametrize("policy", [*SEARCHED, ConfidentPatience])
def test_target_speedup_takes_the_most_accurate_that_is_fast_enough(policy):
    trace = learned_trace()
    chosen = calibrate(policy, trace, target_speedup=1.2)
    outcomes = [simulate(p, trace) for p in type(chosen).settings(trace)]
    fast = [(o.accuracy, o.layer_speedup) for o in outcomes if o.layer_speedup >= 1.2]
    assert len(fast) < len(outcomes)
    chosen = simulate(chosen, trace)
    assert (chosen.accuracy, chosen.layer_speedup) == max(fast)


def test_target_speedup_is_reached_exactly():
    """An exit that just reaches it counts."""
    trace = learned_trace(exits=10)
    for exit in range(1, 11):
        chosen = calibrate("budgeted", trace, target_speedup=10 / exit)
        assert chosen.exit <= exit
        assert simulate(chosen, trace).accuracy == trace.accuracies()[:exit].max()


def test_layers_count_alike_whatever_they_cost():
    trace = learned_trace()
    dear = replace(trace, costs=(9.0, 1.0, 1.0, 1.0, 1.0))
    assert calibrate("pabee", dear, target_speedup=1.4) == calibrate(
        "pabee", trace, target_speedup=1.4
    )


def test_a_speedup_out_of_reach_names_the_highest_there_is():
    with pytest.raises(ValueError, match=r"'pabee' reaches target_speedup 3 .* reaches 2\.\d+$"):
        calibrate("pabee", learned_trace(), target_speedup=3)


def test_no_setting_good_enough_takes_the_most_accurate_and_says_so(caplog):
    trace = learned_trace()
    space = [Budgeted(1), Budgeted(2)]
    assert calibrate("budgeted", trace, space=space, max_accuracy_drop=0).exit == 2
    assert "no setting of 'budgeted' loses at most 0 against" in caplog.text


@pytest.mark.parametrize("policy", [*SEARCHED, ConfidentPatience])
def test_max_accuracy_drop_takes_the_fastest_that_is_good_enough(policy):
    trace = learned_trace()
    floor = trace.accuracies()[-1].item() - 0.1
    chosen = calibrate(policy, trace, max_accuracy_drop=0.1)
    outcomes = [simulate(p, trace) for p in type(chosen).settings(trace)]
    good = [o.layer_speedup for o in outcomes if o.accuracy >= floor - 1e-9]
    assert good
    assert simulate(chosen, trace).layer_speedup == max(good)


def test_a_policy_of_your_own_goes_by_name_too():
    trace = learned_trace()
    assert calibrate(ConfidentPatience.name, trace) == calibrate(ConfidentPatience, trace)


def test_a_space_of_your_own():
    assert calibrate("confidence", learned_trace(), space=[Confidence(0.77)]).threshold == 0.77
    chosen = calibrate(ConfidentPatience, learned_trace(), space=[ConfidentPatience(3, 0.1)])
    assert (chosen.patience, chosen.confidence) == (3, 0.1)


def test_a_space_of_your_own_for_a_policy_without_settings():
    @dataclass(frozen=True)
    class Plain(Policy):
        name = "test-search-plain"
        keep, gain = Keep.NEVER, Gain.CONFIDENCE
        threshold: float = 0.5

        def columns(self, num_exits):
            return Columns(thresholds=self.threshold)

    with pytest.raises(ValueError, match=r"'test-search-plain' does not say which settings to try"):
        calibrate(Plain, learned_trace())
    assert calibrate(Plain, learned_trace(), space=[Plain(0.3)]).threshold == 0.3


def test_settings_are_the_papers():
    trace = learned_trace()
    assert PABEE.settings(trace) == [PABEE(t) for t in (1, 2, 3, 4)]
    assert {p.patience for p in PCEE.settings(trace)} == {2, 3, 4}  # 1 is the entropy policy
    elastic = ElasticBERT.settings(trace)  # both of its rules
    assert [p.patience for p in elastic if p.threshold is None] == [1, 2, 3, 4]
    assert [p.threshold / math.log(3) for p in elastic if p.patience is None] == pytest.approx(
        [i / 50 for i in range(1, 50)]
    )
    assert Budgeted.settings(trace) == [Budgeted(i) for i in (1, 2, 3, 4, 5)]
    assert [p.thresholds for p in BEEM.settings(trace)] == [0.3, 0.6, 0.9, 1.2, 1.5]
    for policy in (Confidence, Entropy, BERxiT):
        thresholds = [p.threshold for p in policy.settings(trace)]
        assert thresholds == pytest.approx([i / 50 for i in range(1, 50)])
    assert PABEE.settings(learned_trace(exits=1)) == [PABEE(1)]


def test_voting_tries_every_value_that_votes_can_take():
    settings = Voting.settings(learned_trace(exits=3))
    assert {p.exponent for p in settings} == {0, 0.25, 0.5, 0.75}
    for k in (0, 0.25, 0.5, 0.75):
        values = {m / i**k for i in (1, 2, 3) for m in range(1, i + 1)}
        thresholds = sorted(p.threshold for p in settings if p.exponent == k)
        assert thresholds == pytest.approx(sorted(values), rel=1e-6)
    # Reached exactly: rounding lets no value miss the threshold that is made of it.
    agree = ExitTrace(torch.tensor([[[9.0, 0.0]]] * 24), torch.zeros(1, dtype=torch.int64))
    for k in (0.25, 0.5, 0.75):
        for exit in (1, 7, 24):
            reached = [
                p
                for p in Voting.settings(agree)
                if p.exponent == k and p.threshold == pytest.approx(exit ** (1 - k), rel=1e-6)
            ]
            assert exit in [simulate(p, agree).exit.item() for p in reached]


def test_a_drop_counts_samples_not_roundings():
    labels = torch.zeros(10, dtype=torch.int64)
    right, wrong = [9.0, 0.0], [0.0, 9.0]
    first = torch.tensor([right] * 7 + [wrong] * 3)
    last = torch.tensor([right] * 8 + [wrong] * 2)
    trace = ExitTrace(torch.stack([first, last]), labels)
    space = [Confidence(0.5), Confidence(1.1)]
    chosen = calibrate("confidence", trace, space=space, max_accuracy_drop=0.1)
    assert chosen.threshold == 0.5


@pytest.mark.parametrize("policy", ["beem", "pabee", "pcee", "eeic", "berxit"])
@pytest.mark.parametrize("exits", [1, 2])
def test_models_with_few_exits(policy, exits):
    assert calibrate(policy, learned_trace(exits=exits)).num_exits == exits


@pytest.mark.parametrize("policy", ["beem", *SEARCHED])
def test_default_dtype_does_not_matter(policy):
    trace = learned_trace(samples=100)
    wanted = calibrate(policy, trace)
    torch.set_default_dtype(torch.float64)
    try:
        got = calibrate(policy, trace)
    finally:
        torch.set_default_dtype(torch.float32)
    assert got == wanted


def test_a_regression_is_calibrated_by_a_correlation():
    trace = regression_trace()
    chosen = calibrate("pabee", trace, metric="spearman", target_speedup=1.5)
    settings = PABEE.settings(trace)
    outcomes = [simulate(setting, trace) for setting in settings]
    fast = [s for s in outcomes if s.layer_speedup >= 1.5]
    outcome = simulate(chosen, trace)
    assert outcome.metric("spearman") == max(s.metric("spearman") for s in fast)
    assert outcome.layer_speedup >= 1.5
    assert (chosen.num_classes, chosen.expected) == (1, None)
    with pytest.raises(ValueError, match="metric must be one of pearson, spearman"):
        calibrate("pabee", trace)


def test_bad_calls():
    trace = learned_trace()
    bare = ExitTrace(trace.logits, trace.labels)
    with pytest.raises(ValueError, match=r"unknown policy 'hope'; there are"):
        calibrate("hope", trace)
    with pytest.raises(ValueError, match="'never' does not say which settings"):
        calibrate("never", trace)
    with pytest.raises(ValueError, match="'berxit' reads learned scores and got none"):
        calibrate("berxit", bare)
    with pytest.raises(ValueError, match="no samples"):
        calibrate("beem", learned_trace(samples=0))
    with pytest.raises(ValueError, match="NaN logits"):
        calibrate("beem", ExitTrace(trace.logits * math.nan, trace.labels))
    with pytest.raises(ValueError, match="NaN scores"):
        calibrate("pabee", replace(trace, scores=trace.scores * math.nan))
    with pytest.raises(ValueError, match="regression"):
        calibrate("beem", ExitTrace(torch.zeros(2, 3, 1), torch.zeros(3)))
    with pytest.raises(ValueError, match="at least one setting"):
        calibrate("pabee", trace, space=[])
    for policy in (PABEE(1), ExitTrace, 3):
        with pytest.raises(TypeError, match="policy must be the name or the class of a policy"):
            calibrate(policy, trace)
    with pytest.raises(TypeError, match="trace must be an ExitTrace"):
        calibrate("beem", [trace])
    with pytest.raises(TypeError, match="patience"):
        calibrate("pabee", trace, patience=3)
    with pytest.raises(TypeError, match=r"space must hold PABEE policies, got Entropy"):
        calibrate("pabee", trace, space=[Entropy(0.5)])
    with pytest.raises(TypeError, match=r"space must be a list of PABEE policies, got 5"):
        calibrate("pabee", trace, space=5)


@pytest.mark.parametrize("policy", ["beem", "pabee"])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(max_accuracy_drop=-0.1), r"max_accuracy_drop must be in \[0, 1\], got -0.1"),
        (dict(max_accuracy_drop=5), r"max_accuracy_drop must be in \[0, 1\], got 5"),
        (dict(max_accuracy_drop=math.nan), "max_accuracy_drop must be in .* got nan"),
        (dict(max_accuracy_drop="0.5%"), "max_accuracy_drop must be a number, got '0.5%'"),
        (dict(target_speedup=0.9), r"target_speedup must be in \[1, inf\], got 0.9"),
        (dict(target_speedup=True), "target_speedup must be a number, got True"),
        (dict(target_speedup=[2]), r"target_speedup must be a number, got \[2\]"),
        (
            dict(target_speedup=2, max_accuracy_drop=0.005),
            "one of target_speedup, max_accuracy_drop and budget, got target_speedup=2 and max_acc",
        ),
        (dict(metric="bleu"), "metric must be one of accuracy, f1, matthews with 3 classes, got"),
        (dict(metric="pearson"), "metric must be one of accuracy, f1, matthews with 3 classes"),
        (dict(budget=-1), r"budget must be in \[0, inf\], got -1"),
        (dict(budget=1, target_speedup=2), "one of .* got target_speedup=2 and budget=1"),
        (dict(costs=[1, 1, 1, 1, 1]), "costs goes with budget"),
        (dict(budget=2, costs=[1, 1]), "costs must hold 5 layers and 5 exits"),
        (dict(budget=2, costs="ms"), "layers must be a list of numbers, got 'ms'"),
        (dict(budget=0.5), r"keeps within budget 0.5 \(layers per sample\) .* takes [12]"),
    ],
)
def test_bad_targets(policy, options, words):
    with pytest.raises(ValueError, match=words):
        calibrate(policy, learned_trace(), **options)


@pytest.mark.parametrize("policy", ["pabee", "confidence", "budgeted", "beem"])
def test_budget_takes_the_best_that_is_cheap_enough(policy):
    """Against layers that cost unequally and exit steps that cost something."""
    trace = learned_trace()
    costs = Costs((1.0, 2.0, 1.0, 4.0, 2.0), (0.5,) * 5, "ms")
    chosen = calibrate(policy, trace, budget=6, costs=costs)
    settings = [replace(chosen, **fields) for fields in changes(chosen, trace)]
    outcomes = []
    for setting in settings:
        outcome, cost = simulate(setting, trace), 0.0
        for exit in outcome.exit.tolist():
            steps = [i for i in setting.exits_used(5) if i <= exit]
            cost += sum(costs.layers[:exit]) + sum(costs.exits[i - 1] for i in steps)
        outcomes.append((outcome.accuracy, -cost / len(trace.labels)))
    cheap = [outcome for outcome in outcomes if -outcome[1] <= 6]
    assert len(cheap) < len(outcomes)
    assert outcomes[settings.index(chosen)] == pytest.approx(max(cheap))


def changes(chosen, trace):
    """The fields of all settings that a search tries."""
    if isinstance(chosen, BEEM):
        highest = sum(chosen.weights)
        return [{"thresholds": highest * i / 100} for i in range(1, 101)] + [{}]
    names = [f.name for f in fields(chosen) if f.init and not f.kw_only]
    return [{n: getattr(s, n) for n in names} for s in type(chosen).settings(trace)]


@pytest.mark.parametrize("metric", ["f1", "matthews"])
@pytest.mark.parametrize("options", [{}, {"target_speedup": 1.5}, {"max_accuracy_drop": 0.1}])
def test_another_metric_than_accuracy(metric, options):
    """Most samples are of class 0, and the first exit always says so: accurate, and of no use."""
    trace = learned_trace(exits=4, classes=2)
    rare = torch.arange(400) % 8 == 0
    keep = (trace.labels == 0) | rare
    logits, labels = trace.logits[:, keep].clone(), trace.labels[keep]
    logits[0] = torch.tensor([9.0, 0.0])
    trace = ExitTrace(logits, labels)
    chosen = calibrate("confidence", trace, metric=metric, **options)
    outcomes = [simulate(s, trace) for s in Confidence.settings(trace)]
    last = simulate(Budgeted(4), trace).metric(metric)
    if "target_speedup" in options:
        wanted = max(o.metric(metric) for o in outcomes if o.layer_speedup >= 1.5)
        assert simulate(chosen, trace).metric(metric) == wanted
    elif options:
        good = [o.layer_speedup for o in outcomes if o.metric(metric) >= last - 0.1]
        if good:
            assert simulate(chosen, trace).layer_speedup == max(good)
    else:
        assert simulate(chosen, trace).metric(metric) == max(o.metric(metric) for o in outcomes)


def test_costs_may_be_a_list_and_without_them_layers_count():
    trace = learned_trace(exits=10, samples=50)
    for exit in (3, 10):
        chosen = calibrate("budgeted", trace, budget=exit)
        assert chosen == calibrate("budgeted", trace, target_speedup=10 / exit)
        assert chosen == calibrate("budgeted", trace, budget=0.1 * exit, costs=[0.1] * 10)
        assert chosen == calibrate("budgeted", replace(trace, costs=(3.0,) * 10), budget=3 * exit)


@pytest.mark.parametrize("name", ["beem", "msdnet", "righttool", "ztw", "eenet", "jei-dnn"])
def test_recipes_by_probabilities_refuse_a_regression(name):
    with pytest.raises(ValueError, match=f"'{name}' decides by class probabilities"):
        calibrate(name, regression_trace(), metric="pearson")
