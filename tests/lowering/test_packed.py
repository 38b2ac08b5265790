"""Packed layers: against the program's reference in each precision, and in compiled models."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertModel

import eefast
from eefast.lowering import PRECISIONS, PackedBackbone, PackedLayers, Program, pack, program_of
from eefast.policies import Confidence, Never

from ..models import inputs_for, tiny_model
from .test_program import CALLS, LOWERED, case, executor, tokens

SETS = torch.ops.eefast.cpp_layer_instruction_sets()
MIXED = Confidence(0.6)


@pytest.fixture
def use():
    """Switches instruction sets; what was used before comes back."""
    before = torch.ops.eefast.cpp_use_layer_instruction_set(SETS[0])
    yield torch.ops.eefast.cpp_use_layer_instruction_set
    torch.ops.eefast.cpp_use_layer_instruction_set(before)


def packed(backbone: Any, precision: Any) -> PackedBackbone:
    layers = pack(backbone, precision)
    assert isinstance(layers, PackedLayers), layers
    return PackedBackbone(backbone, layers)


@torch.no_grad()  # shared models must not be made of inference tensors
def assert_as_reference(name: str, attention: str, precision: Any, calls: Any) -> None:
    """Each layer on the reference's hidden states, by the error against fp64.

    It may be a quarter above that of the reference in the same precision: sums in another order
    round some numbers to the neighbour. In float32, where sums are all there is, three times that;
    and a few roundings of the result.
    """
    own, exact = case(name, attention)
    fast, reference, measure = (
        packed(own, precision),
        executor(own, precision),
        executor(exact, "float64"),
    )
    allowed = 3 if precision == "float32" else 1.25
    for call in calls:
        inputs = tokens(*call)
        hidden, context = fast.start(inputs)
        exact_context = exact.start(inputs)[1]
        for index in range(1, own.depth + 1):
            want = reference.layer(index, hidden, context.own)
            true = measure.layer(index, hidden.double(), exact_context)
            error, budget = (rms(x - true) for x in (fast.layer(index, hidden, context), want))
            rounding = 4 * torch.finfo(torch.float32).eps * rms(true)
            assert error <= allowed * budget + rounding, (call, index, error, budget)
            hidden = want


def rms(x: Tensor) -> float:
    return x.double().square().mean().sqrt().item()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("name", "attention"), LOWERED)
def test_layers_compute_what_the_program_says(name, attention, precision):
    assert_as_reference(
        name, attention, precision, CALLS[1::2] if attention == "eager" else CALLS[4:6]
    )


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["bert", "modernbert"])
@pytest.mark.parametrize("instruction_set", SETS[1:])
def test_every_instruction_set(use, instruction_set, name, precision):
    use(instruction_set)
    assert_as_reference(name, "eager", precision, CALLS[2:6:3])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["bert", "modernbert", "albert-blocks"])
@torch.no_grad()
def test_layers_at_once_are_one_after_the_other(name, precision):
    fast = packed(case(name, "eager")[0], precision)
    hidden, context = fast.start(tokens(3, 9, "right"))
    once = fast.run(range(1, fast.depth + 1), hidden, context)
    for index in range(1, fast.depth + 1):
        hidden = fast.layer(index, hidden, context)
    assert torch.equal(once, hidden)
    assert fast.run(range(2, 2), hidden, context) is hidden


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("instruction_set", SETS)
@torch.no_grad()
def test_a_batch_gives_what_its_samples_give_alone(use, instruction_set, precision):
    use(instruction_set)
    fast = packed(case("bert", "eager")[0], precision)
    inputs = tokens(7, 19, "right")
    hidden, context = fast.start(inputs)
    together = fast.run(range(1, fast.depth + 1), hidden, context)
    for sample, shown in enumerate(inputs["attention_mask"].sum(-1).tolist()):
        alone, context = fast.start({"input_ids": inputs["input_ids"][sample : sample + 1, :shown]})
        alone = fast.run(range(1, fast.depth + 1), alone, context)
        assert torch.equal(alone[0], together[sample, :shown])


@pytest.mark.parametrize("precision", PRECISIONS)
@torch.no_grad()
def test_long_texts_and_threads(precision):
    """Enough work for several threads, which share it another way each time."""
    model = tiny_model()
    layers = packed(model.layers, precision)
    g = torch.Generator().manual_seed(0)
    hidden, context = torch.randn(2, 150, 32, generator=g), layers.start(tokens(1, 3, "none"))[1]
    everything = range(1, 5)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        wanted = layers.run(everything, hidden, context)
        torch.set_num_threads(3)
        for _ in range(5):
            assert torch.equal(layers.run(everything, hidden, context), wanted)
    finally:
        torch.set_num_threads(before)
    reference = executor(model.layers, precision)
    for index in everything:
        hidden = reference.layer(index, hidden, context.own)
    assert rms(hidden - wanted) < {"float32": 1e-5, "bfloat16": 1e-2, "int8": 5e-2}[precision]


def test_a_program_is_packed_as_it_was():
    model = tiny_model()
    program = program_of(model.layers)
    assert isinstance(program, Program)
    layers = PackedLayers(program, "int8")
    hidden = torch.randn(1, 5, 32)
    operands = layers.operands(model.layers.start(inputs_for(model, 1, 5))[1])
    before = layers.run(range(1, 5), hidden, operands)
    with torch.no_grad():
        for parameter in model.backbone.encoder.parameters():
            parameter.zero_()
    assert torch.equal(layers.run(range(1, 5), hidden, operands), before)


@pytest.mark.parametrize(("precision", "each"), [("float32", 4), ("bfloat16", 2), ("int8", 1)])
def test_packed_weights_take_little_more_than_their_numbers(precision, each):
    config = BertConfig(
        vocab_size=9,
        hidden_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=768,
    )
    backbone = eefast.attach_exits(BertModel(config).eval()).eval().layers
    layers = pack(backbone, precision)
    assert isinstance(layers, PackedLayers)
    sizes = [p.numel() * (each if p.dim() == 2 else 4) for p in backbone.model.encoder.parameters()]
    assert layers.bytes < 1.05 * sum(sizes)


# ---- the ops at the door ------------------------------------------------------------------------


def block(dtype="float32", heads=2, **other) -> Tensor:
    """4 wide, 6 within the feed-forward."""
    shapes = {"qkv": (12, 4), "output": (4, 4), "up": (6, 4), "down": (4, 6), **other}
    norms = other.pop("norms", torch.ones(4, 4))
    linears = [
        torch.ops.eefast.pack_linear(torch.ones(shapes[name]), None, dtype)
        for name in ("qkv", "output", "up", "down")
    ]
    numbers = (norms, 1e-5, 1e-5, "gelu", other.pop("gated", False), False, heads)
    return torch.ops.eefast.pack_block(
        *linears, *numbers, 4 // heads, 0.5, -1, other.pop("rotary", -1)
    )


def run(x: Any = None, blocks: Any = None, mask=None, bias=None, tables=()) -> Tensor:
    x = torch.ones(2, 3, 4) if x is None else x
    return torch.ops.eefast.packed_blocks(
        x, [block()] if blocks is None else blocks, mask, bias, list(tables), 0.0
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"qkv": (11, 4)}, "qkv must have 12 outputs and 4 inputs; got 11 and 4"),
        ({"output": (4, 5)}, "output must have 4 outputs and 4 inputs"),
        ({"up": (7, 4)}, "up must have 6 outputs"),
        ({"gated": True}, "up must have 12 outputs"),
        ({"down": (3, 6)}, "down must have 4 outputs"),
        ({"norms": torch.ones(3, 4)}, r"norms must be float32 \[4, 4\]"),
        ({"heads": 4, "rotary": 0}, "head_width must be even"),
        ({"heads": 0}, "heads must be in"),
    ],
)
def test_parts_that_do_not_fit_are_refused(options, words):
    if options.get("heads") == 0:
        with pytest.raises(RuntimeError, match=words):
            torch.ops.eefast.pack_block(
                *(torch.ops.eefast.pack_linear(torch.ones(4, 4), None, "int8") for _ in range(4)),
                *(torch.ones(4, 4), 1e-5, 1e-5, "gelu", False, False, 0, 4, 0.5, -1, -1),
            )
        return
    with pytest.raises(RuntimeError, match=words):
        block(**options)


def altered(buffer: Tensor, at: int, value: int) -> Tensor:
    """With another 64-bit number in the header: 1 is bytes, 2 width, 3 heads, 6 rotary."""
    changed = buffer.clone()
    changed[:128].view(torch.int64)[at] = value
    return changed


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        ([], "blocks must be at least one"),
        ([torch.zeros(500, dtype=torch.uint8)], "blocks must be what pack_block returned"),
        ([torch.zeros(500)], "blocks must be what pack_block returned, uint8"),
        ([block()[:100]], "blocks must be what pack_block returned"),
        ([block()[:-1]], "damaged"),
        ([altered(block(), 1, 5)], "damaged"),
        ([altered(block(), 2, 1 << 61)], "damaged"),
        ([altered(block(), 2, 0)], "damaged"),
        ([altered(block(), 3, 4)], "qkv must have 24 outputs"),
        ([block(), block("int8")], "one dtype and the same shapes"),
        ([altered(block(), 6, 0)], "tables: a block reads pair 0 of them; got 0"),
    ],
)
def test_what_pack_block_did_not_make_is_refused(blocks, words):
    with pytest.raises(RuntimeError, match=words):
        run(blocks=blocks)


@pytest.mark.parametrize(
    ("operands", "words"),
    [
        ({"x": torch.ones(2, 4)}, "x must be"),
        ({"x": torch.ones(2, 3, 5)}, r"x must be float32 \[2, 3, 4\]"),
        ({"x": torch.ones(2, 3, 4).double()}, "x must be float32"),
        ({"x": torch.ones(2, 4, 3).mT}, "x must be .* contiguous"),
        ({"mask": torch.ones(3, 3)}, r"mask must be float32 \[2, 3\]"),
        ({"mask": torch.ones(2, 2)}, r"mask must be float32 \[2, 3\]"),
        ({"bias": torch.ones(1, 3, 3)}, r"bias must be float32 \[2, 3, 3\]"),
        (
            {"blocks": [block(rotary=0)], "tables": [torch.ones(1, 3, 2), torch.ones(1, 2, 2)]},
            r"tables must be float32 \[1, 3, 2\]",
        ),
    ],
)
def test_operands_that_do_not_fit_are_refused(operands, words):
    with pytest.raises(RuntimeError, match=words):
        run(**operands)


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4)])
def test_nothing_gives_nothing(shape):
    assert run(torch.ones(shape)).shape == shape


# ---- compiled models ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*PRECISIONS, torch.float32, torch.bfloat16, torch.int8])
def test_a_compiled_model_answers_by_packed_layers(dtype):
    model = tiny_model()
    inputs = inputs_for(model, 24, padded=True)
    own = eefast.compile(model, Never())(**inputs)
    fast = eefast.compile(model, Never(), dtype=dtype)
    name = str(dtype).removeprefix("torch.")
    assert fast.lowering == f"{name} on {SETS[0]}"
    assert fast.dtype == torch.float32
    out = fast(**inputs)
    budget = {"float32": 1e-5, "bfloat16": 0.05, "int8": 0.25}[name]
    assert rms(out.logits - own.logits) < budget * rms(own.logits)


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
