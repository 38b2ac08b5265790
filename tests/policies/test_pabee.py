"""PABEE for regression: its Eq. 3, on a trace of one output."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eefast import ExitTrace, simulate
from eefast.policies import PABEE, Budgeted, Never, policy_from_dict
from tests.traces.made import regression_trace


def by_the_paper(outputs, patience, tau):
    """Exit and answer of one sample."""
    count = 0
    for i in range(1, len(outputs)):
        count = count + 1 if abs(outputs[i] - outputs[i - 1]) < tau else 0
        if count == patience:
            return i + 1, outputs[i]
    return len(outputs), outputs[-1]


# Multiples of 1/4: whether a difference is less than tau does not depend on rounding.
QUARTERS = st.integers(-4, 4).map(lambda n: n / 4)


@given(
    outputs=st.lists(st.lists(QUARTERS, min_size=6, max_size=6), min_size=1, max_size=4),
    patience=st.integers(1, 5),
    tau=st.sampled_from([0.25, 0.5, 1.0]),
)
def test_it_exits_where_the_papers_loop_does(outputs, patience, tau):
    trace = ExitTrace(torch.tensor(outputs).T[..., None], torch.zeros(len(outputs)))
    outcome = simulate(PABEE(patience, tau), trace)
    wanted = [by_the_paper(sample, patience, tau) for sample in outputs]
    assert list(zip(outcome.exit.tolist(), outcome.prediction.tolist(), strict=True)) == wanted


def test_a_tolerance_changes_nothing_for_classes_and_goes_through_json():
    trace = ExitTrace(torch.randn(4, 20, 3), torch.zeros(20).long())
    assert torch.equal(simulate(PABEE(1), trace).exit, simulate(PABEE(1, 0.5), trace).exit)
    assert policy_from_dict(PABEE(2, 0.5).to_dict()) == PABEE(2, 0.5)
    assert policy_from_dict({"policy": "pabee", "patience": 2}) == PABEE(2)


def test_settings_span_what_exits_differ_by():
    trace = regression_trace()
    settings = PABEE.settings(trace)
    outcomes = [simulate(setting, trace) for setting in settings]
    assert {setting.patience for setting in settings} == {1, 2, 3, 4}
    assert min(outcome.layer_speedup for outcome in outcomes) < 1.01
    assert max(outcome.layer_speedup for outcome in outcomes) > 2.4
    good = [outcome for outcome in outcomes if outcome.layer_speedup > 1.2]
    assert max(outcome.metric("pearson") for outcome in good) > 0.95
    assert simulate(Never(), trace).metric("pearson") == trace.metric("pearson")[-1]
    assert torch.equal(simulate(Budgeted(2), trace).prediction, trace.logits[1, :, 0])
    with pytest.raises(ValueError, match=r"one of pearson, spearman with one output \(regr"):
        _ = outcomes[0].accuracy
