"""Layer programs: every lowered family against its transformers layers."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from eefast.backbones import Backbone, backbone_for
from eefast.lowering import Program, program_of
from eefast.lowering.program import Linear
from eefast.lowering.reference import ReferenceLayers, _product, quantised_rows, quantised_weights

from ..backbones import test_vit as pictures
from ..backbones.families import FAMILIES, PAD, PAIRS, build, started

# The layers of the last two are those of electra and modernbert.
LOWERED = [p for p in PAIRS if p[0] not in ("deberta-v2", "electra-narrow", "modernbert-mean")]
LONG = 40  # the windows of ModernBERT, of 8 on each side, hide from 10 on
CALLS = [  # batch, length and mask
    *((1, 1, "none"), (5, 9, "none")),
    *((5, 17, "right"), (1, LONG, "right")),
    *((1, 2, "left"), (5, LONG, "left")),
    *((5, 17, "one token"), (1, LONG, "one token")),
    *((1, 9, "one sample hidden"), (5, LONG, "one sample hidden")),
]

_GELUS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_accurate")
ACTIVATIONS = (*_GELUS, "relu", "silu", "swish")
_MODERN = [
    {"attention_bias": True, "mlp_bias": True, "norm_bias": True},
    {"layer_types": ["sliding_attention"] * 2 + ["full_attention"]},
    {"local_attention": 4, "hidden_activation": "silu"},
    {
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": theta}
            for kind, theta in (("full_attention", 20.0), ("sliding_attention", 7.0))
        }
    },
]
FLAGS = [
    *(("bert", {"hidden_act": act}) for act in ACTIVATIONS),
    ("bert", {"layer_norm_eps": 0.5}),
    ("bert", {"chunk_size_feed_forward": 2}),
    ("bert", {"num_attention_heads": 1}),
    ("roberta", {"hidden_act": "relu"}),
    ("electra", {"layer_norm_eps": 0.5}),
    ("distilbert", {"activation": "relu"}),
    ("albert", {"hidden_act": "gelu", "layer_norm_eps": 0.5}),
    ("mpnet", {"relative_attention_num_buckets": 40, "hidden_act": "relu"}),
    *(("modernbert", flags) for flags in _MODERN),
]


@cache
def case(name: str, attention: str, dtype: torch.dtype = torch.float32) -> tuple[Backbone, ...]:
    """The adapter, and one in fp64 with its weights, of a model that takes LONG tokens."""
    return pair(build(name, attention, max_position_embeddings=LONG + 2).to(dtype))


def pair(model: Any) -> tuple[Backbone, Backbone]:
    return backbone_for(model), backbone_for(copy.deepcopy(model).double())


def executor(backbone: Backbone, precision: Any = "float32") -> ReferenceLayers:
    program = program_of(backbone)
    assert isinstance(program, Program), program
    return ReferenceLayers(program, precision)


def tokens(batch: int, length: int, mask: str) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(batch * 100 + length)
    inputs = {"input_ids": torch.randint(PAD + 1, 60, (batch, length), generator=g)}
    if mask == "none":
        return inputs
    shown = torch.ones(batch, length, dtype=torch.int64)
    for sample in range(batch):
        padded = min(length - 1, 3 * sample + 2)
        if mask == "right":
            shown[sample, length - padded :] = 0
        elif mask == "left":
            shown[sample, :padded] = 0
        elif mask == "one token":  # and that not the first of all
            shown[sample] = torch.arange(length) == (sample + length // 2) % length
    if mask == "one sample hidden":
        shown[0] = 0
    elif mask == "all hidden":
        shown[:] = 0
    return {**inputs, "attention_mask": shown}


@torch.no_grad()
def assert_as_transformers(
    ours: Backbone, exact: Backbone, inputs: dict[str, Tensor], precision: str = "float32"
) -> None:
    """Each layer on what transformers gives it.

    In fp64 nearly the same numbers; in `precision` an error of the size of the error that the
    layers of transformers make in their dtype, against fp64: at most thrice that and four roundings
    of the result. transformers has parts in fp32 whatever the dtype (rotation, some softmaxes), so
    that its fp64 is no measure there, and NaN where such a softmax sees nothing; ours is.
    """
    kind = exact.model.config.model_type
    partly_fp32 = kind == "modernbert" or exact.model.config._attn_implementation == "eager"
    close = 1e-5 if partly_fp32 else 1e-12
    hidden, context = started(ours, **inputs)
    _, exact_context = started(exact, **inputs)
    layers, measures = executor(ours, precision), executor(exact, "float64")
    for index in range(1, ours.depth + 1):
        measure = measures.layer(index, hidden.double(), exact_context)
        want = exact.layer(index, hidden.double(), exact_context)
        assert measure.isfinite().all()
        if want.isfinite().all() or kind != "modernbert":
            torch.testing.assert_close(measure, want, rtol=close, atol=close)
        theirs, mine = ours.layer(index, hidden, context), layers.layer(index, hidden, context)
        assert mine.dtype == torch.float32
        if theirs.dtype == torch.float32:  # else a wrong measure would allow itself
            torch.testing.assert_close(theirs.double(), measure, rtol=1e-3, atol=1e-3)
        rounding = torch.finfo(theirs.dtype).eps * measure.abs().max()
        allowed = 3 * (theirs.double() - measure).abs().max() + 4 * rounding
        error = (mine.double() - measure).abs().max()
        assert error <= allowed, f"layer {index}: error {error:.3g}, allowed {allowed:.3g}"
        hidden = theirs


@pytest.mark.parametrize(("name", "attention"), LOWERED)
def test_a_program_computes_what_the_layers_of_transformers_do(name, attention):
    for call in CALLS:
        assert_as_transformers(*case(name, attention), tokens(*call))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", pictures.FAMILIES)
def test_pictures(name, attention):
    for batch in (1, 5):
        assert_as_transformers(*pair(pictures.build(name, attention)), pictures.images(batch))


@pytest.mark.parametrize(("name", "flags"), FLAGS, ids=str)
def test_what_the_config_changes(name, flags):
    model = build(name, max_position_embeddings=LONG + 2, **flags)
    assert_as_transformers(*pair(model), tokens(3, 20, "right"))


def test_a_vit_without_biases_of_queries_and_keys():
    model = pictures.build("ViT")
    config = copy.deepcopy(model.config)
    config.qkv_bias = False
    bare = type(model)(config).eval()
    assert bare.layers[0].attention.q_proj.bias is None
    assert_as_transformers(*pair(bare), pictures.images(2))


def test_rows_of_a_batch_that_stay():
    """Eviction selects rows of the context; the hidden tokens' number may go with the others."""
    for name, attention in (("modernbert", "eager"), ("modernbert", "sdpa"), ("mpnet", "eager")):
        backbone, _ = case(name, attention)
        hidden, context = started(backbone, **tokens(5, 24, "one sample hidden"))
        layers = executor(backbone)
        for rows in (torch.tensor([3, 1]), torch.tensor([4, 0])):
            for index in range(1, backbone.depth + 1):
                mine = layers.layer(index, hidden[rows], context.select(rows))
                want = backbone.layer(index, hidden[rows], context.select(rows))
                torch.testing.assert_close(mine, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["bert", "albert", "mpnet", "modernbert"])
def test_bfloat16_errs_less_than_a_model_in_bfloat16(name):
    """The budget of `assert_as_transformers`; and it does round."""
    ours, exact = case(name, FAMILIES[name].attention[0], torch.bfloat16)
    inputs = tokens(5, 17, "right")
    assert_as_transformers(ours, exact, inputs, "bfloat16")
    hidden, context = started(ours, **inputs)
    mine, full = (executor(ours, p).layer(1, hidden, context) for p in ("bfloat16", "float32"))
    assert 1e-4 < (mine - full).abs().max() < 0.1


@pytest.mark.parametrize("name", ["bert", "albert", "mpnet", "modernbert"])
@torch.no_grad()
def test_int8_errs_by_a_few_of_its_steps(name):
    backbone, _ = case(name, FAMILIES[name].attention[0])
    hidden, context = started(backbone, **tokens(5, 17, "right"))
    exact, mine = (executor(backbone, p).layer(1, hidden, context) for p in ("float64", "int8"))
    change = (exact - hidden).norm()
    error = (mine - exact).norm() / change
    assert 1e-4 < error < 0.03, error


def test_int8_linear_is_the_written_rule():
    """Against a loop over tokens and outputs in Python's integers."""
    torch.manual_seed(0)
    x = torch.randn(4, 7) * torch.tensor([[0.1], [3.0], [1.0], [0.0]]) + 0.5
    x[2], x[3] = -x[2].abs(), 0  # no number above 0; none but 0
    weight = torch.randn(5, 7)
    weight[4] = 0
    rows, row_scale, zero = quantised_rows(x)
    values, scale = quantised_weights(weight)
    for r in range(4):
        low, high = min(x[r].min().item(), 0.0), max(x[r].max().item(), 0.0)
        step = (high - low) / 255 or 1.0
        assert row_scale[r].item() == pytest.approx(step, rel=1e-6)
        assert abs(zero[r].item() + low / step) <= 0.501
        for q, number in zip(rows[r].tolist(), x[r].tolist(), strict=True):
            assert 0 <= q <= 255
            assert abs((q - zero[r].item()) * step - number) <= 1.01 * step
    for o in range(5):
        assert scale[o].item() == pytest.approx(weight[o].abs().max().item() / 127 or 1.0)
        assert max(map(abs, values[o].tolist())) == (0 if o == 4 else 127)


def test_int8_product_sums_integers():
    torch.manual_seed(0)
    x, weight, bias = torch.randn(3, 32), torch.randn(8, 32), torch.randn(8)
    rows, row_scale, zero = quantised_rows(x)
    values, scale = quantised_weights(weight)
    got = _product(Linear((weight,), (bias,)), "int8")(x)
    for r in range(3):
        for o in range(8):
            pairs = zip(rows[r].tolist(), values[o].tolist(), strict=True)
            total = sum((a - zero[r].item()) * b for a, b in pairs)
            want = total * row_scale[r].item() * scale[o].item() + bias[o].item()
            assert got[r, o].item() == pytest.approx(want, rel=1e-5, abs=1e-5)


def test_shared_layers_are_one_block_and_weights_are_not_copied():
    for name, blocks, per_layer in (
        ("albert", 1, 1),
        ("albert-groups", 3, 1),
        ("albert-blocks", 4, 2),
    ):
        program = program_of(case(name, "sdpa")[0])
        assert len(program.blocks) == blocks
        assert {len(layer) for layer in program.layers} == {per_layer}
    model = build("bert")
    block = program_of(backbone_for(model)).blocks[1]
    query = model.encoder.layer[1].attention.self.query
    assert block.attention.qkv.weights[0].data_ptr() == query.weight.data_ptr()
