"""What is counted of each call, when it is asked for. (Run-ahead's counts: test_runahead.py.)"""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from eefast import RuntimeStats, compile
from eefast.policies import Budgeted, Confidence, Never
from eefast.runtime import CallStats
from tests.models import inputs_for, tiny_model

RUNTIMES = ["direct", "sync"]


def counted(runtime, policy, samples=3, exits="all"):
    model = tiny_model(exits=exits)
    fast = compile(model, policy, runtime=runtime)
    fast.stats = RuntimeStats()
    fast(**inputs_for(model, samples))
    (call,) = fast.stats.calls
    return call


@pytest.mark.parametrize(
    ("policy", "exits", "layers", "exit_steps"),
    [
        (Never(), "all", 4, 1),
        (Budgeted(2), "all", 2, 1),
        (Confidence(0.0), "all", 1, 1),
        (Confidence(2.0), "all", 4, 4),
        (Confidence(2.0), [1, 4], 4, 2),
        (Confidence(0.0), [3, 4], 3, 1),
    ],
    ids=repr,
)
def test_layers_and_exit_steps(policy, exits, layers, exit_steps):
    assert counted("direct", policy, exits=exits) == (3, layers, 0, exit_steps, 0, 0, None)
    assert counted("sync", policy, exits=exits) == (3, layers, 0, exit_steps, exit_steps, 0, None)


def test_evictions_are_those_after_which_fewer_rows_are_run(monkeypatch):
    model = tiny_model()
    fast = compile(model, Confidence(0.6))
    fast.stats = RuntimeStats()
    rows, layer = [], model.layers.layer
    monkeypatch.setattr(
        model.layers, "layer", lambda i, h, inputs: rows.append(len(h)) or layer(i, h, inputs)
    )
    fast(**inputs_for(model, 24))
    (call,) = fast.stats.calls
    assert call.evictions == len(set(rows)) - 1 > 0


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_counting_is_off_until_asked_for_and_again_when_ended(runtime):
    model = tiny_model()
    fast, inputs = compile(model, Never(), runtime=runtime), inputs_for(model, 2)
    assert fast.stats is None
    fast(**inputs)
    stats = fast.stats = RuntimeStats()
    fast(**inputs)
    fast(**inputs)
    fast.stats = None
    fast(**inputs)
    assert [call.layers_run for call in stats.calls] == [4, 4]
    fast.stats = stats
    assert copy.deepcopy(fast).stats is None  # a copy is compiled anew


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_empty_batch_and_a_call_that_fails_are_not_counted(runtime, monkeypatch):
    model = tiny_model()
    fast = compile(model, Never(), runtime=runtime)
    fast.stats = RuntimeStats()
    fast(torch.empty(0, 7, dtype=torch.int64))
    monkeypatch.setattr(model.layers, "layer", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fast(**inputs_for(model, 2))
    assert fast.stats.calls == []


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_calls_of_several_threads_are_all_counted(runtime):
    model = tiny_model()
    fast = compile(model, Confidence(0.6), runtime=runtime)
    fast.stats = RuntimeStats()
    batches = [inputs_for(model, size) for size in range(1, 9)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda batch: fast(**batch), batches * 4))
    assert sorted(call.samples for call in fast.stats.calls) == sorted([*range(1, 9)] * 4)


def test_a_call_that_ends_while_the_counts_are_read_is_not_lost():
    stats = RuntimeStats()

    def late():
        stats.add(CallStats(2, 4, 0, 4, 0, 0))  # as another thread may
        return CallStats(1, 4, 0, 4, 0, 0)

    stats.add(late)
    assert [call.samples for call in stats.calls] == [1]
    assert [call.samples for call in stats.calls] == [1, 2]


def test_what_is_not_known_yet_is_asked_for_once():
    asked = []

    def later():
        asked.append(True)
        return CallStats(1, 4, 1, 4, 0, 0)

    stats = RuntimeStats()
    stats.add(CallStats(2, 4, 0, 4, 0, 0))
    stats.add(later)
    assert not asked
    assert [call.samples for call in stats.calls] == [2, 1]
    assert [call.samples for call in stats.calls] == [2, 1]
    assert len(asked) == 1
