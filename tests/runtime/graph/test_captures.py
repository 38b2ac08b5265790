"""What the graph runtime captures, keeps, gives up and refuses; on a stand-in for CUDA graphs."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from eefast import RuntimeStats, compile
from eefast.policies import Confidence
from eefast.runtime.graph import GraphRuntime
from tests.models import inputs_for, tiny_model
from tests.runtime.graph.on_stand_in import close, compiled
from tests.runtime.graph.stand_in import StandInDevice

MIXED = Confidence(0.6)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.mark.filterwarnings("ignore:captured shapes do not all fit")
def test_memory_is_bounded(model):
    fast, device = compiled(model, MIXED)
    fast(**inputs_for(model, 1))
    one = device.captures[0].reserved_bytes
    fast._runtime._memory_limit = int(2.5 * one)
    for _ in range(3):
        for length in (12, 18, 27, 12):  # three buckets; the last was used last but two
            inputs = inputs_for(model, 1, length)
            close(fast(**inputs), compile(model, MIXED)(**inputs))
            held = [capture for capture in device.captures if not capture.closed]
            assert sum(capture.reserved_bytes for capture in held) <= 2.5 * one
    assert device.closed > 0


def test_the_least_recently_used_shape_is_discarded(model):
    fast, device = compiled(model, MIXED)
    batches = [inputs_for(model, samples) for samples in (1, 2, 3)]
    for inputs in (batches[0], batches[1], batches[0]):
        fast(**inputs)
    fast._runtime._memory_limit = 4.5 * device.captures[0].reserved_bytes  # one and three fit
    with pytest.warns(UserWarning, match="captured shapes do not all fit into memory_limit"):
        fast(**batches[2])
    assert [capture.closed for capture in device.captures] == [False, True, False]


def test_a_shape_that_does_not_fit_is_refused(model):
    fast, device = compiled(model, MIXED, memory_limit=1000)
    with pytest.raises(
        RuntimeError, match=r"needs \d+ bytes of device memory, memory_limit is 1000"
    ):
        fast(**inputs_for(model, 1))
    assert device.captures[0].closed
    fast._runtime._memory_limit = 1 << 30
    fast(**inputs_for(model, 1))


def test_warm_up_captures(model):
    fast, device = compiled(model, MIXED)
    fast.stats = RuntimeStats()
    fast.warm_up([(1, 12), (4, 30), (1, 16)])
    assert device.opened == 2
    assert fast.stats.calls == []
    for samples, length in ((1, 12), (4, 30)):
        inputs = inputs_for(model, samples, length)
        close(fast(**inputs), compile(model, MIXED)(**inputs))
    assert device.opened == 2


def test_empty_batch(model):
    fast, device = compiled(model, MIXED)
    out = fast(torch.empty(0, 7, dtype=torch.int64))
    assert out.logits.shape == (0, 3)
    assert device.opened == 0
    with pytest.raises(ValueError, match="got 41 tokens per sequence; wanted 1 to 40"):
        fast(torch.empty(0, 41, dtype=torch.int64))


@pytest.mark.parametrize("threads", [3])
def test_threads_may_call_one_model_at_once(model, threads):
    fast, _ = compiled(model, MIXED)
    batches = [inputs_for(model, 1 + seed % 3, 12, seed, padded=True) for seed in range(6)]
    wanted = [compile(model, MIXED)(**inputs) for inputs in batches]
    start = threading.Barrier(threads)

    def calls(first):
        start.wait()
        order = [(first + number) % len(batches) for number in range(12)]
        return [(number, fast(**batches[number])) for number in order]

    with ThreadPoolExecutor(threads) as pool:
        for outs in pool.map(calls, range(threads)):
            for number, out in outs:
                close(out, wanted[number])


class BrokenLayerError(Exception):
    pass


@pytest.mark.parametrize("error", [BrokenLayerError, KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("at", [1, 2, 3])  # watched, warmed up, recorded
def test_a_layer_that_fails_leaves_the_runtime_usable(model, monkeypatch, error, at):
    fast, device = compiled(model, MIXED)
    inputs, layer, met = inputs_for(model, 4), model.layers.layer, []
    fast(**inputs_for(model, 1))

    def failing(index, hidden, layer_inputs):
        met.append(index)
        if met.count(2) == at:
            raise error("broken")
        return layer(index, hidden, layer_inputs)

    with monkeypatch.context() as patched:
        patched.setattr(model.layers, "layer", failing)
        with pytest.raises(error, match="broken"):
            fast(**inputs)
    assert device.captures[-1].closed
    for batch in (inputs, inputs_for(model, 1)):
        close(fast(**batch), compile(model, MIXED)(**batch))


def test_what_cannot_be_captured_is_named(model, monkeypatch):
    fast, device = compiled(model, MIXED)
    inputs, layer = inputs_for(model, 4), model.layers.layer

    def asking(index, hidden, layer_inputs):
        hidden = layer(index, hidden, layer_inputs)
        return hidden if index < 3 else hidden / hidden.abs().max().item()

    monkeypatch.setattr(model.layers, "layer", asking)
    message = r"layers 3 to 3: cannot be captured.*_local_scalar_dense.*has the host wait"
    with pytest.raises(RuntimeError, match=message):
        fast(**inputs)
    assert device.captures[0].graph.replays == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(nodes="both"), r"nodes must be one of \('nested', 'flat'\), got 'both'"),
        (dict(length_buckets=[50]), "must end by 40"),
        (dict(memory_limit="1GB"), "memory_limit must be a number of bytes, got '1GB'"),
        (dict(memory_limit=0), "memory_limit must be a number of bytes, got 0"),
    ],
)
def test_options_are_checked(model, options, message):
    with pytest.raises(ValueError, match=message):
        GraphRuntime(model.layers, model.num_classes, "auto", device=StandInDevice(), **options)


def test_the_reference_cannot_be_captured(model):
    with pytest.raises(ValueError, match="impl='reference' cannot be captured"):
        GraphRuntime(model.layers, model.num_classes, "reference", device=StandInDevice())


def test_inputs_must_be_on_the_model_s_device(model):
    fast, device = compiled(model, MIXED)
    inputs = inputs_for(model, 2)
    with pytest.raises(ValueError, match="attention_mask: got device meta; wanted cpu"):
        fast(inputs["input_ids"], inputs["attention_mask"].to("meta"))
    assert device.opened == 0


@pytest.mark.filterwarnings("ignore:captured shapes do not all fit")
def test_when_memory_ends_shapes_are_discarded_and_then_it_raises(model, monkeypatch):
    fast, device = compiled(model, MIXED)
    for samples in (1, 2):
        fast(**inputs_for(model, samples))
    layer = model.layers.layer

    def full(index, hidden, layer_inputs):
        if sum(not capture.closed for capture in device.captures) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return layer(index, hidden, layer_inputs)

    inputs = inputs_for(model, 3)
    with monkeypatch.context() as patched:
        patched.setattr(model.layers, "layer", full)
        with pytest.warns(UserWarning, match="the device's memory"):
            close(fast(**inputs), compile(model, MIXED)(**inputs))
        assert [c.closed for c in device.captures] == [True, False, True, False]

    def fuller(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(model.layers, "layer", fuller)
    with pytest.raises(torch.OutOfMemoryError):
        fast(**inputs_for(model, 4))
    assert all(capture.closed for capture in device.captures)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"position_ids": torch.arange(5)}, r"position_ids: got shape \[5\]; wanted \[2, 5\]"),
        ({"token_type_ids": torch.ones(3, 5).long()}, r"got shape \[3, 5\]; wanted \[2, 5\]"),
    ],
)
def test_what_a_copy_would_take_in_silence_is_refused(model, inputs, message):
    fast, device = compiled(model, MIXED)
    with pytest.raises(ValueError, match=message):
        fast(**{"input_ids": torch.ones(2, 5, dtype=torch.int64), **inputs})
    assert device.opened == 0


def test_close_discards_everything(model):
    fast, device = compiled(model, MIXED)
    for samples in (1, 2):
        fast(**inputs_for(model, samples))
    fast._runtime.close()
    assert [capture.closed for capture in device.captures] == [True, True]
    fast(**inputs_for(model, 1))
