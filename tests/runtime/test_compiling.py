"""`compile` with a dtype: models whose layers are packed, and those whose layers cannot be."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

import pytest
import torch
from torch import Tensor

import eefast
from eefast import MultiExitModel
from eefast.backbones import gathered
from eefast.lowering import PRECISIONS
from eefast.ops import _native
from eefast.policies import Confidence, Never

from ..lowering.test_program import executor
from ..models import inputs_for, tiny_model

MIXED = Confidence(0.6)


def rms(x: Tensor) -> float:
    return x.double().square().mean().sqrt().item()


def logits_by(model: MultiExitModel, precision: Any, inputs: dict[str, Tensor]) -> Tensor:
    """Of the last exit, with the layers as the program's reference runs them."""
    backbone = model.layers
    layers = executor(backbone, precision)
    hidden, context = backbone.start(inputs)
    for index in range(1, backbone.depth + 1):
        hidden = layers.layer(index, hidden, context)
    return model.heads(
        backbone.depth, gathered(*backbone.readout(backbone.depth, hidden, context))
    )[0]


@pytest.mark.parametrize("dtype", [*PRECISIONS, torch.float32, torch.bfloat16, torch.int8])
@torch.no_grad()
def test_a_compiled_model_answers_by_packed_layers(dtype):
    """The error of the logits against fp64 is that of the reference in the same precision.

    The errors of both are of one distribution. The root of the mean square of n of them spreads by
    1 / sqrt(2 n) of it, the quotient of two by sqrt(2) as much: four of these are allowed. In
    float32, where sums in another order are all there is, thrice the reference's; and a few
    roundings of the result.
    """
    model = tiny_model()
    inputs = inputs_for(model, 64, padded=True)
    fast = eefast.compile(model, Never(), dtype=dtype)
    name = str(dtype).removeprefix("torch.")
    assert fast.lowering == f"{name} on {torch.ops.eefast.cpp_layer_kernel(name)}"
    assert fast.dtype == torch.float32
    true = logits_by(copy.deepcopy(model).double(), "float64", inputs)
    error = rms(fast(**inputs).logits - true)
    budget = rms(logits_by(model, name, inputs) - true)
    allowed = 3 if name == "float32" else 1 + 4 * true.numel() ** -0.5
    assert error <= allowed * budget + 4 * torch.finfo(torch.float32).eps * rms(true)


def test_float32_exits_where_the_model_s_own_layers_exit():
    model = tiny_model()
    inputs = inputs_for(model, 40, padded=True)
    own, fast = (eefast.compile(model, MIXED, dtype=d)(**inputs) for d in (None, "float32"))
    assert set(own.exit_layer.tolist()) == {1, 2, 3, 4}
    assert torch.equal(fast.exit_layer, own.exit_layer)
    assert torch.equal(fast.prediction, own.prediction)
    torch.testing.assert_close(fast.logits, own.logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_compiled_batch_is_its_samples(precision):
    model = tiny_model()
    inputs = inputs_for(model, 24, padded=True)
    fast = eefast.compile(model, MIXED, dtype=precision)
    out = fast(**inputs)
    for i, shown in enumerate(inputs["attention_mask"].sum(-1).tolist()):
        alone = fast(input_ids=inputs["input_ids"][i : i + 1, :shown])
        assert alone.exit_layer.item() == out.exit_layer[i]
        assert alone.prediction.item() == out.prediction[i]


def test_a_cascade_reads_exits_that_are_not_used():
    model = tiny_model(cascade=True)
    inputs = inputs_for(model, 9)
    own, fast = (eefast.compile(model, Never(), dtype=d)(**inputs) for d in (None, "float32"))
    torch.testing.assert_close(fast.logits, own.logits, rtol=1e-4, atol=1e-4)


def test_the_compiled_copy_has_its_own_weights_and_no_second_ones():
    model = tiny_model()
    inputs = inputs_for(model, 3)
    fast = eefast.compile(model, MIXED, dtype="bfloat16")
    before = fast(**inputs).logits
    layers = fast.model.backbone.encoder.layer
    assert all(parameter.is_meta for parameter in layers.parameters())
    assert not any(parameter.is_meta for parameter in model.parameters())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(fast(**inputs).logits, before)
    with pytest.raises(RuntimeError, match="save the MultiExitModel"):
        fast.save_pretrained("nowhere")


def test_copies_and_pickles_answer_alike():
    model = tiny_model()
    inputs = inputs_for(model, 3)
    fast = eefast.compile(model, MIXED, dtype="int8")
    copied = copy.deepcopy(fast)
    assert copied._layers is fast._layers
    for other in (copied, pickle.loads(pickle.dumps(fast))):
        assert torch.equal(other(**inputs).logits, fast(**inputs).logits)


def test_moving_packed_layers_is_refused():
    fast = eefast.compile(tiny_model(), MIXED, dtype="int8")
    assert fast.to("cpu") is fast
    assert fast.float() is fast
    for move in (lambda: fast.to(torch.bfloat16), fast.half, lambda: fast.to("meta")):
        with pytest.raises(RuntimeError, match=r"int8 on .* compile the MultiExitModel again"):
            move()


def test_what_cannot_be_packed_runs_as_before_and_says_why():
    model = tiny_model()
    model.set_attn_implementation("eager")
    model.backbone.config._attn_implementation = "flex_attention"
    fast = eefast.compile(model, MIXED, dtype=torch.bfloat16)
    assert fast.lowering.startswith("not lowered: bert: attn_implementation is 'flex_attention'")
    assert fast.dtype == torch.bfloat16
    with pytest.raises(ValueError, match=r"dtype: got int8, .*flex_attention"):
        eefast.compile(model, MIXED, dtype="int8")
    assert eefast.compile(model, MIXED).lowering == "not lowered: no dtype was asked for"
    half = eefast.compile(tiny_model(), MIXED, dtype="float16", impl="reference")
    assert "not in float16" in half.lowering


def test_without_the_extension_the_model_s_own_layers_run(monkeypatch):
    monkeypatch.setattr(_native, "AVAILABLE", False)
    fast = eefast.compile(tiny_model(), MIXED, dtype="bfloat16", impl="reference")
    assert fast.lowering == "not lowered: eefast's C++ extension is not built here"
    with pytest.raises(ValueError, match=r"int8, .*not built here"):
        eefast.compile(tiny_model(), MIXED, dtype="int8", impl="reference")


@pytest.mark.parametrize("dtype", ["fp8", "linear", 3, torch.int64, torch.complex64])
def test_an_unknown_dtype_is_refused(dtype):
    with pytest.raises(TypeError, match="dtype must be 'float32', 'bfloat16', 'int8'"):
        eefast.compile(tiny_model(), MIXED, dtype=dtype)


def test_weights_that_int8_cannot_hold_are_refused():
    model = tiny_model()
    with torch.no_grad():
        model.backbone.encoder.layer[2].output.dense.weight[0, 0] = torch.inf
    with pytest.raises(RuntimeError, match="weight must be finite"):
        eefast.compile(model, MIXED, dtype="int8")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_several_threads_may_call_at_once(precision):
    model = tiny_model()
    fast = eefast.compile(model, MIXED, dtype=precision)
    calls = [inputs_for(model, 1 + i, 30, seed=i, padded=True) for i in range(4)]
    wanted = [fast(**inputs).logits for inputs in calls]
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(20):
            if not torch.equal(fast(**calls[i]).logits, wanted[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
