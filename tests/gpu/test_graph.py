"""The graph runtime on a real GPU."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from eefast import RuntimeStats, attach_exits, compile
from eefast.ops import implementation
from eefast.policies import Confidence, Never
from eefast.runtime.graph.cuda import chosen_back_end
from tests.backbones.families import FAMILIES, model_of
from tests.gpu.calls import (
    POLICIES,
    call,
    check,
    check_from_threads,
    no_synchronisation,
    to_gpu,
)
from tests.models import inputs_for, tiny_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

MIXED = Confidence(0.6)
BACK_ENDS = ["torch", "bindings"]


def graph(model, policy=MIXED, **options):
    impl, dtype = options.pop("impl", "auto"), options.pop("dtype", None)
    return compile(model, policy, runtime="graph", impl=impl, dtype=dtype, options=options)


def skip_without(back_end, impl="auto"):
    try:
        chosen_back_end(back_end)
        implementation(impl, "cuda", torch.float32)
    except RuntimeError as not_there:
        pytest.skip(str(not_there))


def captured(fast):
    return list(fast._runtime._captured)


@pytest.mark.parametrize("nodes", ["nested", "flat"])
@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@pytest.mark.parametrize("samples", [1, 8, 40])  # 40: more than impl="cuda" takes
def test_it_answers_as_the_cpu_and_never_synchronises(on_cpu, on_gpu, policy, samples, nodes):
    inputs = inputs_for(on_cpu, samples, padded=True)
    fast = graph(on_gpu, policy, nodes=nodes)
    check(call(fast, to_gpu(inputs)), compile(on_cpu, policy)(**inputs))


@pytest.mark.parametrize("nodes", ["nested", "flat"])
@pytest.mark.parametrize("back_end", BACK_ENDS)
@pytest.mark.parametrize("impl", ["cuda", "triton"])
def test_each_way_to_make_a_node(on_cpu, on_gpu, impl, back_end, nodes):
    skip_without(back_end, impl)
    fast = graph(on_gpu, impl=impl, back_end=back_end, nodes=nodes)
    for seed in range(4):
        inputs = inputs_for(on_cpu, 6, seed=seed, padded=True)
        check(call(fast, to_gpu(inputs)), compile(on_cpu, MIXED)(**inputs))
    assert len(captured(fast)) == 1


def test_new_inputs_lengths_and_thresholds_need_no_new_capture(on_cpu, on_gpu):
    fast, on_host = graph(on_gpu), compile(on_cpu, MIXED)
    for length, threshold in [(12, 0.6), (5, 0.6), (16, 0.6), (3, 0.9), (12, 0.0), (12, 2.0)]:
        fast.policy = on_host.policy = Confidence(threshold)
        inputs = inputs_for(on_cpu, 8, length, seed=length, padded=True)
        check(call(fast, to_gpu(inputs)), on_host(**inputs))
        fast.policy_table[:, 1] = on_host.policy_table[:, 1] = 0.7
        check(call(fast, to_gpu(inputs)), on_host(**inputs))
    assert len(captured(fast)) == 1


@pytest.mark.parametrize("back_end", BACK_ENDS)
def test_many_shapes_and_exits(on_cpu, back_end):
    skip_without(back_end)
    wide, on_host = tiny_model(layers=40).to("cuda"), compile(tiny_model(layers=40), MIXED)
    fast = graph(wide, back_end=back_end, memory_limit=64 << 30)
    for samples in range(1, 13):
        inputs = inputs_for(on_cpu, samples, padded=True)
        check(call(fast, to_gpu(inputs)), on_host(**inputs))
    assert len(captured(fast)) == 12


@pytest.mark.parametrize("back_end", BACK_ENDS)
def test_a_discarded_shape_frees_its_memory(on_gpu, back_end):
    skip_without(back_end)

    def held():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        return torch.cuda.memory_reserved()

    inputs, after = to_gpu(inputs_for(on_gpu, 2)), []
    for _ in range(6):
        fast = graph(on_gpu, back_end=back_end)
        fast(**inputs)
        fast._runtime.close()
        del fast
        after.append(held())
    assert after[-1] == after[1]


@pytest.mark.filterwarnings("ignore:captured shapes do not all fit")
def test_discarded_shapes_are_captured_again(on_cpu, on_gpu):
    fast, on_host = graph(on_gpu), compile(on_cpu, MIXED)
    batches = [inputs_for(on_cpu, samples, padded=True) for samples in (1, 2, 3)]
    fast(**to_gpu(batches[0]))
    (shape,) = fast._runtime._captured.values()
    assert shape.reserved_bytes > 0
    fast._runtime._memory_limit = int(2.5 * shape.reserved_bytes)
    for _ in range(2):
        for inputs in batches:
            check(fast(**to_gpu(inputs)), on_host(**inputs))
            assert len(captured(fast)) <= 2


def test_results_are_copies(on_cpu, on_gpu):
    fast, first, second = graph(on_gpu), inputs_for(on_cpu, 4), inputs_for(on_cpu, 4, seed=1)
    out = fast(**to_gpu(first))
    fast(**to_gpu(second))
    check(out, compile(on_cpu, MIXED)(**first))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("family", [name for name in FAMILIES if FAMILIES[name].captured])
def test_every_family_in_every_precision(family, dtype):
    torch.manual_seed(0)
    attention = FAMILIES[family].attention[0]
    model = attach_exits(copy.deepcopy(model_of(family, attention, torch.float32)), num_labels=3)
    model = model.eval().to("cuda", dtype)
    inputs = to_gpu(inputs_for(model, 6, padded=True))
    for policy in (Never(), Confidence(0.0)):
        fast = graph(model, policy)
        wanted = compile(model, policy, runtime="sync")(**inputs)
        out = call(fast, inputs)
        assert torch.equal(out.exit_layer, wanted.exit_layer)
        # The same kernels, except for padding to the bucket and another order of sums.
        tolerance = 1e-4 if dtype == torch.float32 else 32 * torch.finfo(dtype).eps
        torch.testing.assert_close(out.logits, wanted.logits, atol=tolerance, rtol=tolerance)


def test_compiled_layers(on_cpu):
    model = tiny_model().to("cuda")
    for layer in model.backbone.encoder.layer:
        layer.compile()
    fast = graph(model)
    for seed in range(3):
        inputs = inputs_for(on_cpu, 8, seed=seed, padded=True)
        check(call(fast, to_gpu(inputs)), compile(on_cpu, MIXED)(**inputs))


def test_layers_that_cannot_be_captured_are_refused_by_name(on_cpu, on_gpu, monkeypatch):
    inputs, layer = inputs_for(on_cpu, 4), on_gpu.layers.layer
    fast = graph(on_gpu)

    def asking(index, hidden, layer_inputs):
        if index == 3:
            hidden.sum().item()
        return layer(index, hidden, layer_inputs)

    with monkeypatch.context() as patched:
        patched.setattr(on_gpu.layers, "layer", asking)
        with pytest.raises(RuntimeError, match=r"layers 3 to 3.*_local_scalar_dense"):
            fast(**to_gpu(inputs))
    assert not captured(fast)
    check(call(fast, to_gpu(inputs)), compile(on_cpu, MIXED)(**inputs))


def test_a_capture_that_cuda_spoils_does_no_harm(on_cpu, on_gpu, monkeypatch):
    inputs, layer, met = inputs_for(on_cpu, 4), on_gpu.layers.layer, []
    fast, here = graph(on_gpu), torch.cuda.current_stream()

    def waiting(index, hidden, layer_inputs):
        met.append(index)
        if met.count(2) == 3:  # while it is recorded; it is no operator
            torch.cuda.synchronize()
        return layer(index, hidden, layer_inputs)

    with monkeypatch.context() as patched:
        patched.setattr(on_gpu.layers, "layer", waiting)
        with pytest.raises(RuntimeError, match="layers 2 to 2: cannot be captured"):
            fast(**to_gpu(inputs))
    assert torch.cuda.current_stream() == here
    torch.rand(1, device="cuda")
    check(call(fast, to_gpu(inputs)), compile(on_cpu, MIXED)(**inputs))


def test_two_models_may_be_captured_at_once(on_cpu):
    models = [tiny_model().to("cuda") for _ in range(2)]
    batches = [inputs_for(on_cpu, samples) for samples in range(1, 7)]
    wanted = [compile(on_cpu, MIXED)(**inputs) for inputs in batches]

    def work(model):
        fast = graph(model)
        return [fast(**to_gpu(inputs)) for inputs in batches]

    with ThreadPoolExecutor(2) as pool:
        for outs in pool.map(work, models):
            for out, want in zip(outs, wanted, strict=True):
                check(out, want)


def test_autocast_does_not_reach_into_a_graph(on_cpu, on_gpu):
    fast, inputs = graph(on_gpu), inputs_for(on_cpu, 4)
    for enabled in (True, False):
        with torch.autocast("cuda", torch.bfloat16, enabled=enabled):
            check(fast(**to_gpu(inputs)), compile(on_cpu, MIXED)(**inputs))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_a_device_that_is_not_the_current_one(on_cpu):
    fast, inputs = graph(tiny_model().to("cuda:1")), inputs_for(on_cpu, 4)
    there = {name: value.to("cuda:1") for name, value in inputs.items()}
    fast(**there)
    torch.cuda.empty_cache()
    check(fast(**there), compile(on_cpu, MIXED)(**inputs))


def test_counting(on_gpu):
    fast, inputs = graph(on_gpu, Confidence(0.0)), to_gpu(inputs_for(on_gpu, 4))
    fast(**inputs)
    fast.stats = RuntimeStats()
    with no_synchronisation():
        fast(**inputs)
    (stats,) = fast.stats.calls
    assert (stats.layers_run, stats.layers_wasted, stats.exit_steps, stats.host_syncs) == (
        1,
        0,
        1,
        0,
    )


@pytest.mark.parametrize("own_streams", [False, True])
def test_threads_may_call_one_model_at_once(on_cpu, on_gpu, own_streams):
    fast = graph(on_gpu)
    batches = [inputs_for(on_cpu, 1 + seed % 3, seed=seed, padded=True) for seed in range(9)]
    wanted = [compile(on_cpu, MIXED)(**batch) for batch in batches]
    if own_streams:  # else shapes are captured while others call
        fast.warm_up([(samples, 12) for samples in (1, 2, 3)])
    check_from_threads(fast, batches, wanted, own_streams)
