"""JEI-DNN's policy: its gates written out for one sample, in every implementation, and saved."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import eefast
from eefast import ExitTrace, MultiExitModel, record_trace, simulate
from eefast.policies import JEIDNN, policy_from_dict
from tests.models import inputs_for, tiny_model
from tests.ops.cases import IMPLS
from tests.ops.oracle import signals_of

row = st.lists(st.floats(-4, 4, width=16), min_size=3, max_size=3)
weight = st.floats(-8, 8, width=16)
gate = st.lists(weight, min_size=3, max_size=3)


@given(
    st.lists(row, min_size=4, max_size=4),
    st.lists(gate, min_size=3, max_size=3),
    st.sampled_from([0.5, 0.3]),
)
def test_it_leaves_where_the_gate_opens(z, gates, threshold):
    exit = score = None
    for i, (logits, (a, b, c)) in enumerate(zip(z, [*gates, [0.0] * 3], strict=True), 1):
        _, confidence, entropy = signals_of(logits)
        q = 1 / (1 + math.exp(-(a * confidence + b * (1 - entropy) + c)))
        if i < 4 and abs(q - threshold) < 1e-4:
            return
        if q >= threshold or i == 4:
            exit, score = i, q
            break
    trace = ExitTrace(torch.tensor(z)[:, None], torch.zeros(1, dtype=torch.int64))
    outcome = simulate(JEIDNN(torch.tensor(gates), threshold, num_classes=3), trace)
    assert outcome.exit.item() == exit
    assert outcome.score.item() == pytest.approx(score, abs=1e-4)
    assert outcome.prediction.item() == signals_of(z[exit - 1])[0]


GATES = torch.tensor([[8.0, 0.0, -6.0], [4.0, 4.0, -3.5], [0.0, 6.0, -1.0]])


@pytest.mark.parametrize("impl", [impl for impl in IMPLS if impl != "cuda"])
def test_compiled_it_leaves_where_simulation_says(impl):
    model, policy = tiny_model(), JEIDNN(GATES, num_classes=3)
    inputs = inputs_for(model, 40)
    trace = record_trace(model, [{**inputs, "labels": torch.zeros(40, dtype=torch.int64)}])
    wanted = simulate(policy, trace).exit
    assert set(wanted.tolist()) == {1, 2, 3, 4}
    fast = eefast.compile(model, policy=policy, impl=impl)
    rows = torch.arange(40)
    if impl == "triton":  # its interpreter is slow: one sample for each exit
        rows = torch.stack([(wanted == exit).nonzero()[0, 0] for exit in (4, 1, 3, 2)])
    out = fast(**{name: values[rows] for name, values in inputs.items()})
    assert torch.equal(out.exit_layer.long(), wanted[rows])


def test_it_is_saved_and_loaded_whole(tmp_path):
    model, policy = tiny_model(), JEIDNN(GATES, 0.4, num_classes=3)
    model.set_policy(policy)
    model.save_pretrained(tmp_path)
    assert MultiExitModel.from_pretrained(tmp_path).get_policy("jei-dnn") == policy
    assert policy_from_dict(policy.to_dict(), policy.tensors()) == policy
    assert policy != replace(policy, gates=GATES + 1)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: JEIDNN(torch.zeros(3, 2), num_classes=3), r"gates must be a tensor .*\[3, 2\]"),
        (lambda: JEIDNN([[0.0] * 3], num_classes=3), "gates must be a tensor .*got list"),
        (lambda: JEIDNN(GATES / 0, num_classes=3), "gates must be finite"),
        (lambda: JEIDNN(GATES, -1, num_classes=3), "threshold must be in"),
        (lambda: JEIDNN(GATES), "num_classes must be given"),
        (lambda: JEIDNN(GATES, num_classes=3).check(3, 3), "3 gates, the model has 3 exits"),
        (lambda: JEIDNN(GATES, num_classes=3).check(4, 2), "calibrated for 3 classes, got 2"),
    ],
)
def test_errors_name_the_argument(make, words):
    with pytest.raises(ValueError, match=words):
        make()
