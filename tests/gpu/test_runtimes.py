"""The runtimes on a real GPU, where a hidden synchronisation is an error."""

import pytest
import torch

from eefast import RuntimeStats, compile
from eefast.ops import implementation
from eefast.policies import Confidence, Never
from tests.gpu.calls import (
    HALF_A_SECOND,
    POLICIES,
    call,
    check,
    check_from_threads,
    no_synchronisation,
    to_gpu,
)
from tests.models import inputs_for

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@pytest.mark.parametrize("samples", [1, 8, 40])  # 40: more than impl="cuda" takes
@pytest.mark.parametrize("padded", [False, True])
def test_run_ahead_answers_as_the_cpu_and_never_synchronises(
    on_cpu, on_gpu, policy, samples, padded
):
    inputs = inputs_for(on_cpu, samples, padded=padded)
    fast = compile(on_gpu, policy)
    assert fast.runtime == "runahead"
    fast.stats = RuntimeStats()
    check(call(fast, to_gpu(inputs)), compile(on_cpu, policy)(**inputs))
    assert all(stats.layers_wasted <= 1 for stats in fast.stats.calls)


@pytest.mark.parametrize("impl", ["cuda", "triton"])
def test_run_ahead_with_each_implementation(on_cpu, on_gpu, impl):
    try:
        implementation(impl, "cuda", torch.float32)
    except RuntimeError as not_built:
        pytest.skip(str(not_built))
    inputs = inputs_for(on_cpu, 24, padded=True)
    fast = compile(on_gpu, Confidence(0.6), impl=impl)
    check(call(fast, to_gpu(inputs)), compile(on_cpu, Confidence(0.6))(**inputs))


def test_evicting_does_not_synchronise_either(on_cpu, on_gpu, monkeypatch):
    monkeypatch.setattr(
        "eefast.runtime.runahead._evicting_pays", lambda rows, stay, *_: stay < rows
    )
    inputs = inputs_for(on_cpu, 40, padded=True)
    policy = Confidence(0.6)
    fast = compile(on_gpu, policy)
    fast.stats = RuntimeStats()
    check(call(fast, to_gpu(inputs)), compile(on_cpu, policy)(**inputs))
    # After two stages the first outcome is known at the latest.
    assert all(stats.evictions >= 1 for stats in fast.stats.calls)


@pytest.mark.parametrize("runtime", ["runahead", "graph"])
def test_the_result_is_returned_while_the_gpu_is_busy(on_gpu, runtime):
    fast = compile(on_gpu, Never(), runtime=runtime)
    inputs = to_gpu(inputs_for(on_gpu, 4))
    fast(**inputs)
    with no_synchronisation():
        torch.cuda._sleep(HALF_A_SECOND)
        out = fast(**inputs)
        assert not torch.cuda.current_stream().query()
    assert out.exit_layer.tolist() == [4] * 4


def test_a_busy_gpu_is_waited_for_only_beyond_depth(on_gpu):
    fast, inputs = compile(on_gpu, Confidence(2.0)), to_gpu(inputs_for(on_gpu, 4))
    fast(**inputs)
    fast.stats = RuntimeStats()
    with no_synchronisation():
        torch.cuda._sleep(HALF_A_SECOND)
        out = fast(**inputs)
    (stats,) = fast.stats.calls
    # The third stage has to wait for the first; the fourth may find the second done.
    assert 1 <= stats.host_syncs <= 2
    assert out.exit_layer.tolist() == [4] * 4


def test_sync_answers_as_the_cpu_and_does_synchronise(on_cpu, on_gpu):
    """This also shows that the mode above finds a synchronisation."""
    inputs = inputs_for(on_cpu, 8)
    fast = compile(on_gpu, Confidence(0.6), runtime="sync")
    check(fast(**to_gpu(inputs)), compile(on_cpu, Confidence(0.6))(**inputs))
    on_device = to_gpu(inputs)
    with no_synchronisation(), pytest.raises(RuntimeError, match="synchronizing CUDA operation"):
        fast(**on_device)


@pytest.mark.parametrize("own_streams", [False, True])
def test_threads_may_call_one_model_at_once(on_cpu, on_gpu, own_streams):
    fast = compile(on_gpu, Confidence(0.6))
    batches = [inputs_for(on_cpu, size, seed=size, padded=True) for size in range(1, 9)]
    wanted = [compile(on_cpu, Confidence(0.6))(**batch) for batch in batches]
    for batch in batches:
        fast(**to_gpu(batch))
    check_from_threads(fast, batches, wanted, own_streams)


def test_an_abandoned_call_does_no_harm(on_cpu, on_gpu, monkeypatch):
    inputs = inputs_for(on_cpu, 8, padded=True)
    fast, on_device = compile(on_gpu, Confidence(0.6)), to_gpu(inputs)
    fast(**on_device)
    layer = on_gpu.layers.layer

    def interrupted(index, hidden, layer_inputs):
        if index == 2:
            raise KeyboardInterrupt
        return layer(index, hidden, layer_inputs)

    with monkeypatch.context() as patched:
        patched.setattr(on_gpu.layers, "layer", interrupted)
        torch.cuda._sleep(HALF_A_SECOND)  # its outcomes have not arrived when the next call starts
        with pytest.raises(KeyboardInterrupt):
            fast(**on_device)
    check(fast(**on_device), compile(on_cpu, Confidence(0.6))(**inputs))
