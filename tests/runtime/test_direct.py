"""The direct runtime against the plain full-depth model and the simulated policy."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eefast import compile, record_trace, simulate
from eefast.policies import (
    BEEM,
    PABEE,
    PCEE,
    ZTW,
    Accumulate,
    BERxiT,
    Budgeted,
    Columns,
    Confidence,
    Entropy,
    Gain,
    Keep,
    Never,
    Policy,
)
from eefast.runtime.direct import _evicting_pays
from tests.models import inputs_for, tiny_model

POLICIES = [
    BEEM.cost(4, [0.2, 0.5, 0.9, 0.0]),
    PABEE(1),
    PCEE(1, 0.5),
    PCEE(2, 0.6, "confidence"),
    Entropy(0.5),
    Confidence(0.7),
    Budgeted(2),
    Never(),
]
IMPLS = ["reference", "cpp"]
# What a float32 model of this size rounds between one batch shape and another.
TOLERANCE = dict(atol=2e-4, rtol=2e-4)


@pytest.fixture(scope="module", params=["linear", "pooler"])
def model(request):
    return tiny_model(head=request.param, cascade=request.param == "pooler")


def judged(model, policy, inputs) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Exit layer, logits and score of each sample alone: run at full depth, then simulated."""
    samples = len(inputs["input_ids"])
    exits, logits, scores = [], [], []
    for n in range(samples):
        length = int(inputs["attention_mask"][n].sum())
        alone = {k: v[n : n + 1, :length] for k, v in inputs.items()}
        trace = record_trace(model, [{**alone, "labels": torch.zeros(1, dtype=torch.int64)}])
        outcome = simulate(policy, trace)
        exits.append(outcome.exit_layer)
        scores.append(outcome.score)
        logits.append(trace.logits[outcome.exit.item() - 1])
    return torch.cat(exits), torch.cat(logits), torch.cat(scores)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@pytest.mark.parametrize("padded", [False, True])
def test_a_batch_gives_what_its_samples_give_alone(model, policy, impl, padded):
    inputs = inputs_for(model, 24, padded=padded)
    exits, logits, scores = judged(model, policy, inputs)
    out = compile(model, policy, impl=impl)(**inputs)
    assert torch.equal(out.exit_layer, exits)
    assert torch.equal(out.prediction, logits.argmax(-1))
    torch.testing.assert_close(out.logits, logits, **TOLERANCE)
    torch.testing.assert_close(out.score, scores, **TOLERANCE)


def test_the_cases_above_do_use_different_exits(model):
    inputs = inputs_for(model, 24)
    for policy in POLICIES[:6]:
        assert len(compile(model, policy)(**inputs).exit_layer.unique()) > 1, policy


@dataclass(frozen=True)
class Elects(Policy):
    """By the votes of the first and the third exit, which have to agree."""

    name = "test-elects"
    keep, gain, accumulate = Keep.AGREE, Gain.VOTES, Accumulate.VOTES

    def columns(self, num_exits):
        return Columns(thresholds=[1.5, -9.0, 2.5, -9.0])

    def exits_used(self, num_exits):
        return range(1, 4, 2)


@dataclass(frozen=True)
class Certain(BERxiT):
    """By the learned scores of the first and the third exit."""

    name = "test-certain"

    def exits_used(self, num_exits):
        return range(1, 4, 2)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(
    ("policy", "computed"),
    [
        (Elects(), [1, 2, 3]),
        (Certain(0.6), [1, 2, 3]),
        (ZTW(0.85, (0.5, 1.0, 0.25, 1.0)), [1, 2, 3, 4]),
        (Budgeted(3), [1, 2, 3]),
        (Never(), [4]),  # whose head reads no other
    ],
    ids=repr,
)
def test_in_a_cascade_exits_that_others_read_are_computed(monkeypatch, policy, computed, impl):
    model = tiny_model(cascade=True, scorer_row=True)
    inputs, read, readout = inputs_for(model, 24, padded=True), [], model.layers.readout
    labels = torch.zeros(24, dtype=torch.int64)
    trace = record_trace(model, [{**inputs, "labels": labels}], keep=["scores"])
    outcome = simulate(policy, trace)
    monkeypatch.setattr(
        model.layers, "readout", lambda layer, *rest: read.append(layer) or readout(layer, *rest)
    )
    out = compile(model, policy, impl=impl)(**inputs)
    assert read == computed
    assert torch.equal(out.exit_layer, outcome.exit_layer)
    assert torch.equal(out.prediction, outcome.prediction)
    torch.testing.assert_close(out.score, outcome.score, **TOLERANCE)
    if policy.accumulate is Accumulate.NONE:
        logits = torch.stack(model(**inputs).exit_logits)[outcome.exit - 1, torch.arange(24)]
        torch.testing.assert_close(out.logits, logits, **TOLERANCE)


def test_one_output_in_a_cascade():
    """What an exit left is read by the next, and compared with what that gives."""
    model, policy = tiny_model(classes=1, cascade=True), PABEE(1, 0.5)
    inputs = inputs_for(model, 24, padded=True)
    exits, logits, _ = judged(model, policy, inputs)
    out = compile(model, policy)(**inputs)
    assert torch.equal(out.exit_layer, exits)
    assert len(exits.unique()) > 1
    torch.testing.assert_close(out.logits, logits, **TOLERANCE)

    @dataclass(frozen=True)
    class SomeAgree(PABEE):
        name = "test-some-agree"

        def exits_used(self, num_exits):
            return range(1, num_exits, 2)

    with pytest.raises(ValueError, match=r"compares exits.*must use all of them, got .*\[1, 3\]"):
        compile(model, SomeAgree(1, 0.5))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(list(range(9))), keep=st.integers(1, 9))
def test_order_and_company_do_not_matter(model, order, keep):
    inputs, fast = inputs_for(model, 9, padded=True), compile(model, POLICIES[0])
    whole = fast(**inputs)
    rows = order[:keep]
    part = fast(**{k: v[rows] for k, v in inputs.items()})
    assert torch.equal(part.exit_layer, whole.exit_layer[rows])
    torch.testing.assert_close(part.logits, whole.logits[rows], **TOLERANCE)


@pytest.mark.parametrize("exits", [[4], [2, 4], [1, 3, 4]])
def test_exits_after_some_layers_only(exits):
    model = tiny_model(exits=exits)
    inputs = inputs_for(model, 12)
    policy = Confidence(0.7)
    layers, logits, _ = judged(model, policy, inputs)
    out = compile(model, policy)(**inputs)
    assert torch.equal(out.exit_layer, layers)
    assert set(out.exit_layer.tolist()) <= set(exits)
    torch.testing.assert_close(out.logits, logits, **TOLERANCE)


def count_layers(model, monkeypatch):
    """Rows that each layer was run on, in order of the calls."""
    calls = []
    layer = model.layers.layer

    def counting(index, hidden, inputs):
        calls.append((index, len(hidden)))
        return layer(index, hidden, inputs)

    monkeypatch.setattr(model.layers, "layer", counting)
    return calls


def test_layers_behind_the_last_exit_needed_are_not_run(monkeypatch):
    model = tiny_model()
    calls = count_layers(model, monkeypatch)
    inputs = inputs_for(model, 3)
    compile(model, Budgeted(2))(**inputs)
    assert calls == [(1, 3), (2, 3)]
    calls.clear()
    compile(model, Confidence(0.0))(**inputs)
    assert calls == [(1, 3)]


def test_exited_rows_are_evicted(monkeypatch):
    model = tiny_model()
    calls = count_layers(model, monkeypatch)
    out = compile(model, Confidence(0.7))(**inputs_for(model, 24))
    for layer, rows in calls:
        assert rows == (out.exit_layer >= layer).sum()


def test_evicting_pays_by_the_stated_ratio():
    assert _evicting_pays(2, 1)
    assert not _evicting_pays(2, 2)
    assert _evicting_pays(64, 63)
    assert not _evicting_pays(100, 99)  # copying 99 rows costs more than computing one
    assert _evicting_pays(100, 98)


def test_a_few_exited_rows_stay_in_a_large_batch_untouched(monkeypatch):
    """Exited rows that were not evicted: the exit step must skip them."""
    model = tiny_model()
    inputs = inputs_for(model, 24)
    policy = Confidence(0.7)
    wanted = compile(model, policy)(**inputs)
    monkeypatch.setattr("eefast.runtime.direct._evicting_pays", lambda rows, stay: False)
    calls = count_layers(model, monkeypatch)
    got = compile(model, policy)(**inputs)
    assert {rows for _, rows in calls} == {24}
    assert torch.equal(got.exit_layer, wanted.exit_layer)
    torch.testing.assert_close(got.logits, wanted.logits, **TOLERANCE)


@pytest.mark.parametrize("impl", IMPLS)
def test_empty_batch(model, impl):
    fast = compile(model, Confidence(0.7), impl=impl)
    out = fast(torch.empty(0, 7, dtype=torch.int64))
    assert out.logits.shape == (0, 3)
    assert out.prediction.shape == out.exit_layer.shape == out.score.shape == (0,)


@pytest.mark.parametrize("impl", IMPLS)
def test_bfloat16(impl):
    """Exits may differ from float32's, but not from those of the same bfloat16 model."""
    model = tiny_model().to(torch.bfloat16)
    fast = compile(model, Confidence(0.7), impl=impl)
    assert fast.dtype == torch.bfloat16
    inputs = inputs_for(model, 24)
    trace = record_trace(model, [{**inputs, "labels": torch.zeros(24, dtype=torch.int64)}])
    sure = (trace.logits.softmax(-1).amax(-1) - 0.7).abs().amin(0) > 0.05  # bf16 heads round
    assert sure.sum() > 4
    out = fast(**inputs)
    assert torch.equal(out.exit_layer[sure], simulate(Confidence(0.7), trace).exit_layer[sure])


def test_two_threads_may_call_one_model(model):
    fast = compile(model, POLICIES[0])
    batches = [inputs_for(model, size, seed=size, padded=True) for size in range(1, 9)]
    wanted = [fast(**batch) for batch in batches]
    start = threading.Barrier(4)

    def call(offset):
        start.wait()
        order = list(itertools.islice(itertools.cycle(range(8)), offset, offset + 24))
        return [(i, fast(**batches[i])) for i in order]

    with ThreadPoolExecutor(4) as pool:
        for results in pool.map(call, range(4)):
            for i, out in results:
                assert torch.equal(out.exit_layer, wanted[i].exit_layer)
                torch.testing.assert_close(out.logits, wanted[i].logits, **TOLERANCE)


def test_a_call_keeps_its_policy_when_another_thread_changes_it(model, monkeypatch):
    fast = compile(model, Never())
    inputs = inputs_for(model, 4)
    layer = model.layers.layer

    def meddling(index, hidden, layer_inputs):
        fast.policy = Confidence(0.0)  # from the next call on
        return layer(index, hidden, layer_inputs)

    monkeypatch.setattr(model.layers, "layer", meddling)
    assert fast(**inputs).exit_layer.tolist() == [4] * 4
    assert fast(**inputs).exit_layer.tolist() == [1] * 4


def test_trace_of_nan_answers_at_the_last_exit():
    model = tiny_model()
    with torch.no_grad():
        model.heads.classifiers[0].bias[0] = float("nan")
        model.heads.classifiers[1].bias[0] = float("nan")
        model.heads.classifiers[2].bias[0] = float("nan")
    out = compile(model, Confidence(0.0))(**inputs_for(model, 3))
    assert out.exit_layer.tolist() == [4, 4, 4]
    assert out.logits.isfinite().all()


def test_the_last_exit_that_a_policy_uses_answers_whatever_the_score(model):
    @dataclass(frozen=True)
    class FirstTwo(Policy):
        name = "test-first-two"
        keep, gain = Keep.NEVER, Gain.CONFIDENCE

        def columns(self, num_exits):
            return Columns()  # no score reaches infinity

        def exits_used(self, num_exits):
            return range(1, 3)

    inputs = inputs_for(model, 5)
    out = compile(model, FirstTwo())(**inputs)
    assert out.exit_layer.tolist() == [2] * 5
    torch.testing.assert_close(out.logits, model(**inputs).exit_logits[1], **TOLERANCE)
