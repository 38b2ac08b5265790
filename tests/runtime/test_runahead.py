"""The run-ahead runtime on stand-ins for a GPU, from instant to always late."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eefast.policies import BEEM, Budgeted, Confidence, Never
from eefast.runtime.runahead import TOKENS_THAT_FILL, RunAheadRuntime, _evicting_pays
from tests.models import plan_for
from tests.runtime.ahead import (
    ALL,
    EVERY,
    MIXED,
    PAIRS,
    SAMPLES,
    UNEVEN,
    Call,
    inputs_of,
    model_with,
    wanted,
)
from tests.runtime.stand_in import Instant, Late, StandIn
from tests.runtime.test_direct import POLICIES, TOLERANCE

LAGS = st.lists(st.sampled_from([0.0, 0.0, 1e-4, 1e-3]), min_size=1, max_size=12)
EVICTING = {
    "never": lambda *_: False,
    "whenever a row can go": lambda rows, stay, *_: stay < rows,
    "by the cost model": _evicting_pays,
}


@pytest.mark.parametrize("exits", [EVERY, PAIRS, UNEVEN])
@given(
    lags=LAGS,
    depth=st.integers(0, 4),
    policy=st.sampled_from([*POLICIES, MIXED, Confidence(0.0)]),
    rows=st.one_of(st.integers(0, SAMPLES - 1).map(lambda row: [row]), st.permutations(ALL)),
    evicting=st.sampled_from(sorted(EVICTING)),
)
def test_no_lag_changes_an_answer_or_wastes_more_than_depth(
    exits, lags, depth, policy, rows, evicting
):
    if isinstance(policy, BEEM):  # it has a weight for every exit
        policy = BEEM.cost(len(exits), 0.5)
    ran = []
    with (
        patch("eefast.runtime.runahead._evicting_pays", EVICTING[evicting]),
        StandIn(lags) as device,
    ):
        call = Call(policy, device.queue, exits=exits, rows=rows, depth=depth)
        layer = call.model.layers.layer
        with patch.object(
            call.model.layers, "layer", lambda i, *rest: ran.append(i) or layer(i, *rest)
        ):
            call.run()
            device.synchronize()
    call.check()
    needed, stages = call.stages_needed, call.plan.stages
    allowed = min(needed + depth, len(stages))
    assert ran == list(range(1, len(ran) + 1))
    assert stages[needed - 1].layers.stop <= len(ran) + 1 <= stages[allowed - 1].layers.stop
    (stats,) = call.stats.calls
    assert stats.layers_run == len(ran)
    assert stats.layers_wasted == len(ran) + 1 - stages[needed - 1].layers.stop
    assert stats.host_syncs == call.waits


def test_mixed_exits_at_every_exit():
    assert sorted(set(wanted(MIXED, *EVERY)[0].tolist())) == list(EVERY)


@pytest.mark.parametrize("depth", [0, 1, 2, 4])
@pytest.mark.parametrize("policy", [Confidence(0.0), MIXED, Never(), Budgeted(3)])
def test_a_device_that_keeps_up_is_never_waited_for(policy, depth):
    call = Call(policy, Instant, depth=depth).run().check()
    assert (call.waits, call.questions) == (0, 0)
    (stats,) = call.stats.calls
    assert (stats.host_syncs, stats.layers_wasted) == (0, 0)


@pytest.mark.parametrize("depth", [0, 1, 2, 4])
@pytest.mark.parametrize("threshold", [0.0, 0.6, 2.0])
def test_a_device_that_is_always_late_is_waited_for_beyond_depth_only(threshold, depth):
    call = Call(Confidence(threshold), Late, rows=[0], depth=depth).run()
    call.queue.finish()
    call.check()
    assert call.questions == 0  # waiting for an event is all that it does
    stages = len(call.plan.stages)
    enqueued = min(call.stages_needed + depth, stages)
    # Whether to continue after stage n is asked when stage n + depth is in the queue, and never
    # after the last.
    assert call.waits == min(call.stages_needed, max(0, stages - 1 - depth))
    (stats,) = call.stats.calls
    assert stats == (1, enqueued, enqueued - call.stages_needed, enqueued, call.waits, 0, None)


def test_the_result_is_returned_before_the_device_is_done():
    call = Call(Never(), Late).run()
    assert call.waits == 0
    assert not call.state.exit_layer.any()
    call.queue.finish()
    call.check()


def rows_run(monkeypatch, model):
    """Layer and number of rows of each layer run from now on."""
    ran = []
    layer = model.layers.layer

    def counting(index, hidden, inputs):
        ran.append((index, len(hidden)))
        return layer(index, hidden, inputs)

    monkeypatch.setattr(model.layers, "layer", counting)
    return ran


@pytest.mark.parametrize(("new_queue", "behind"), [(Instant, 0), (Late, 1)])
def test_rows_known_to_have_exited_are_evicted(monkeypatch, new_queue, behind):
    monkeypatch.setattr("eefast.runtime.runahead._evicting_pays", EVICTING["whenever a row can go"])
    call = Call(MIXED, new_queue)
    ran = rows_run(monkeypatch, call.model)
    call.run().queue.finish()
    call.check()
    exit_layer = wanted(MIXED, *EVERY)[0]
    assert ran == [(i, int((exit_layer >= max(1, i - behind)).sum())) for i in range(1, 5)]
    (stats,) = call.stats.calls
    assert stats.evictions == 3 - behind


def test_small_batches_are_not_evicted_from(monkeypatch):
    call = Call(MIXED, Instant)
    ran = rows_run(monkeypatch, call.model)
    call.run().check()
    assert {rows for _, rows in ran} == {SAMPLES}
    assert call.stats.calls[0].evictions == 0


def test_evicting_pays_by_the_stated_costs():
    full = TOKENS_THAT_FILL // 128  # rows of 128 tokens
    assert not _evicting_pays(1, 1, 128, 12)
    assert not _evicting_pays(full, 1, 128, 12)  # few rows take as long as fewer
    assert _evicting_pays(2 * full, full, 128, 1)
    assert not _evicting_pays(2 * full, 2 * full, 128, 12)
    assert not _evicting_pays(2 * full, 2 * full - 1, 128, 1)
    assert _evicting_pays(2 * full, 2 * full - full // 4, 128, 4)  # a stage of several layers
    assert not _evicting_pays(2 * full, 2 * full - full // 4, 128, 1)
    assert not _evicting_pays(100 * full, 99 * full, 128, 1)  # so many rows cost more to copy
    assert _evicting_pays(100 * full, 80 * full, 128, 1)


@pytest.mark.parametrize("lags", [[0.0], [1e-4, 0.0, 1e-3]])
@pytest.mark.parametrize("threads", [1, 3])
def test_several_threads_may_call_one_runtime_at_once(monkeypatch, lags, threads):
    monkeypatch.setattr("eefast.runtime.runahead._evicting_pays", EVICTING["whenever a row can go"])
    model, plan = model_with(*EVERY), plan_for(MIXED, model_with(*EVERY))
    start = threading.Barrier(threads)

    @torch.inference_mode()
    def calls(thread):
        start.wait()
        results = []
        for number in range(12):  # of few sizes, and of different samples each time
            first, size = 7 * number + thread, (1, 1, 5, SAMPLES)[number % 4]
            rows = [(first + i) % SAMPLES for i in range(size)]
            batch = {name: value[rows] for name, value in inputs_of(*EVERY).items()}
            results.append((rows, runtime.run(plan, batch)))
        return results

    with StandIn(lags) as device, ThreadPoolExecutor(threads) as pool:
        runtime = RunAheadRuntime(model.layers, model.num_classes, "auto", 1, device.queue)
        results = list(itertools.chain(*pool.map(calls, range(threads))))
    exit_layer, _, logits, _ = wanted(MIXED, *EVERY)
    for rows, state in results:
        assert torch.equal(state.exit_layer, exit_layer[rows].int())
        torch.testing.assert_close(state.logits, logits[rows], **TOLERANCE)


class BrokenLayerError(Exception):
    pass


def fail_once_at(layer, model, monkeypatch):
    intact = model.layers.layer

    def failing(index, hidden, inputs):
        if index == layer:
            monkeypatch.setattr(model.layers, "layer", intact)
            raise BrokenLayerError
        return intact(index, hidden, inputs)

    monkeypatch.setattr(model.layers, "layer", failing)


@pytest.mark.parametrize("layer", [1, 2, 4])
@pytest.mark.parametrize("lags", [[0.0], [1e-3]])
def test_a_layer_that_fails_on_the_device_raises(monkeypatch, layer, lags):
    with StandIn(lags) as device:
        call = Call(Confidence(2.0), device.queue)
        fail_once_at(layer, call.model, monkeypatch)

        def run_and_read():
            try:
                call.run()
            finally:
                device.synchronize()

        with pytest.raises(BrokenLayerError):
            run_and_read()
        call.run()
        device.synchronize()
        call.check()


@pytest.mark.parametrize("layer", [1, 3])
def test_a_layer_that_fails_on_the_host_ends_the_call(monkeypatch, layer):
    call = Call(Confidence(2.0), Instant)
    fail_once_at(layer, call.model, monkeypatch)
    with pytest.raises(BrokenLayerError):
        call.run()
    assert call.stats.calls == []
    call.run().check()
    assert len(call.stats.calls) == 1


@pytest.mark.parametrize("before", [1, 2, 3])
def test_an_abandoned_call_does_no_harm(monkeypatch, before):
    """Ctrl-C between two stages, before the device has done any of the first ones."""
    monkeypatch.setattr("eefast.runtime.runahead._evicting_pays", EVICTING["whenever a row can go"])
    call = Call(MIXED, Late, depth=3)
    enqueue, enqueued = Late.enqueue, itertools.count(1)

    def interrupted(self, work):
        if next(enqueued) > before:
            raise KeyboardInterrupt
        enqueue(self, work)

    with patch.object(Late, "enqueue", interrupted), pytest.raises(KeyboardInterrupt):
        call.run()
    given_up = call.queue
    call.run()
    given_up.finish()  # its outcomes arrive while the next call is running
    call.queue.finish()
    call.check()
    assert not torch.equal(given_up._slots, call.queue._slots)
    assert len(call.stats.calls) == 1


def test_an_empty_batch_enqueues_nothing():
    call = Call(MIXED, Late, rows=[])
    call.queue = Late(0, 0, None)
    call.run()
    assert call.state.logits.shape == (0, 3)
    assert call.stats.calls == []


def test_depth_is_checked():
    with pytest.raises(ValueError, match="depth must be 0 or more stages, got -1"):
        RunAheadRuntime(model_with(*EVERY).layers, 3, "auto", -1)
