"""Packed layers: against the program's reference in each precision."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertModel

import eefast
from eefast.backbones import Backbone
from eefast.lowering import PRECISIONS, PackedBackbone, PackedLayers, Program, pack, program_of

from ..backbones import test_vit as pictures
from ..models import inputs_for, tiny_model
from .conftest import SETS
from .test_program import CALLS, LOWERED, case, executor, pair, tokens


def packed(backbone: Any, precision: Any) -> PackedBackbone:
    layers = pack(backbone, precision)
    assert isinstance(layers, PackedLayers), layers
    return PackedBackbone(backbone, layers)


@torch.no_grad()  # shared models must not be made of inference tensors
def assert_as_reference(
    own: Backbone, exact: Backbone, precision: Any, calls: Iterable[dict[str, Tensor]]
) -> None:
    """Each layer on the reference's hidden states, by the error against fp64."""
    fast, reference, measure = (
        packed(own, precision),
        executor(own, precision),
        executor(exact, "float64"),
    )
    for inputs in calls:
        hidden, context = fast.start(inputs)
        exact_context = exact.start(inputs)[1]
        for index in range(1, own.depth + 1):
            want = reference.layer(index, hidden, context.own)
            true = measure.layer(index, hidden.double(), exact_context)
            got = fast.layer(index, hidden, context)
            assert_in_budget(got, want, true, precision, index)
            hidden = want


def assert_in_budget(
    got: Tensor, by_reference: Tensor, true: Tensor, precision: Any, case: Any
) -> None:
    """The error against fp64 may be a quarter above that of the reference in the same precision.

    Sums in another order round some numbers to the neighbour. In float32, where sums are all there
    is, three times the reference's; and a few roundings of the result.
    """
    allowed = 3 if precision == "float32" else 1.25
    error, budget = rms(got - true), rms(by_reference - true)
    rounding = 4 * torch.finfo(torch.float32).eps * rms(true)
    assert error <= allowed * budget + rounding, (case, error, budget)


def rms(x: Tensor) -> float:
    return x.double().square().mean().sqrt().item()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("name", "attention"), LOWERED)
def test_layers_compute_what_the_program_says(name, attention, precision):
    calls = CALLS[1::2] if attention == "eager" else CALLS[4:6]
    assert_as_reference(*case(name, attention), precision, [tokens(*call) for call in calls])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_pictures(precision):
    assert_as_reference(*pair(pictures.build("ViT")), precision, [pictures.images(3)])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_runs_a_precision_is_named(instruction_set, precision):
    """An instruction set has kernels of its own for some precisions, of lesser ones for others."""
    name = torch.ops.eefast.cpp_layer_kernel(precision)
    assert SETS.index(name) >= SETS.index(instruction_set)
    own = {"amx": {"bfloat16", "int8"}, "avx512_vnni": {"bfloat16", "int8"}, "avx2_vnni": {"int8"}}
    if precision not in own.get(instruction_set, PRECISIONS):
        assert name != instruction_set
    if instruction_set in ("avx512", "avx2", "baseline"):
        assert name == instruction_set


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
@torch.no_grad()
def test_a_batch_gives_what_its_samples_give_alone(instruction_set, precision):
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
    torch.ops.eefast.cpp_guard_memory(True)
    try:
        torch.set_num_threads(1)
        wanted = layers.run(everything, hidden, context)
        torch.set_num_threads(3)
        for _ in range(5):
            assert torch.equal(layers.run(everything, hidden, context), wanted)
    finally:
        torch.set_num_threads(before)
        torch.ops.eefast.cpp_guard_memory(False)


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
