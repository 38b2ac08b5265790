"""What a program cannot state is refused, with the reason in one line."""

from __future__ import annotations

import types

import pytest
import torch
from torch import nn
from transformers.models.bert.modeling_bert import BertLayer
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.pytorch_utils import Conv1D

from eefast.backbones import Backbone, backbone_for
from eefast.backbones.families import BertBackbone
from eefast.lowering import NotLowered, Program, program_of

from ..backbones import test_vit as pictures
from ..backbones.families import build
from .test_program import tokens


class Packed(nn.Parameter):
    """As parameters of quantised linears are."""


class Lora(nn.Linear):
    """As adapters are: a linear that is no nn.Linear any more."""


def _hook(model):
    model.encoder.layer[1].output.register_forward_hook(lambda *call: None)


def _pre_hook(model):
    model.encoder.layer[1].register_forward_pre_hook(lambda *call: None)


def _backward_hook(model):
    model.encoder.layer[1].output.register_full_backward_hook(lambda *call: None)


def _backward_pre_hook(model):
    model.encoder.layer[1].output.register_full_backward_pre_hook(lambda *call: None)


def _patch(model):
    layer = model.encoder.layer[1].intermediate
    layer.forward = types.MethodType(type(layer).forward, layer)


def _lora(model):
    model.encoder.layer[1].output.dense = Lora(48, 32).eval()


def _parametrised(model):
    nn.utils.parametrizations.weight_norm(model.encoder.layer[1].output.dense)


def _integers(model):
    dense = model.encoder.layer[1].output.dense
    dense.weight = nn.Parameter(dense.weight.to(torch.int8), requires_grad=False)


def _own_kind(model):
    dense = model.encoder.layer[1].output.dense
    dense.weight = Packed(dense.weight)


def _conv1d(model):
    model.encoder.layer[1].output.dense = Conv1D(32, 48).eval()


def _no_bias(model):
    model.encoder.layer[1].attention.self.key.bias = None


def _wrapped(model):
    model.encoder.layer[1] = nn.Sequential(model.encoder.layer[1])


def _namesake(model):
    model.encoder.layer[1].__class__ = type("BertLayer", (BertLayer,), {"__module__": "mine"})


def _other_layer(model):
    model.encoder.layer[1] = model.encoder.layer[1].intermediate


def _norm(model):
    model.encoder.layer[1].output.LayerNorm = nn.RMSNorm(32).eval()


def _their_norm(model):
    model.encoder.layer[1].output.LayerNorm = LlamaRMSNorm(32).eval()


def _norm_over_two_axes(model):
    model.encoder.layer[1].output.LayerNorm = nn.LayerNorm((4, 32)).eval()


def _decoder(model):
    model.encoder.layer[1].is_decoder = True


def _cross(model):
    model.encoder.layer[1].add_cross_attention = True


def _other_layout(model):
    del model.encoder.layer[1].attention.output.LayerNorm


CHANGES = [
    (_hook, "BertLayer.output has hooks"),
    (_pre_hook, "BertLayer has hooks"),
    (_backward_hook, "BertLayer.output has hooks"),
    (_backward_pre_hook, "BertLayer.output has hooks"),
    (_patch, "BertLayer.intermediate has a forward of its own"),
    (_lora, "BertLayer.output.dense is .*Lora"),
    (_parametrised, "BertLayer.output.dense is .*ParametrizedLinear"),
    (_integers, "BertLayer.output.dense has weights of another kind"),
    (_own_kind, "BertLayer.output.dense has weights of another kind"),
    (_conv1d, "a linear is .*Conv1D"),
    (_no_bias, "some have a bias and some have none"),
    (_wrapped, "it is .*Sequential; wanted BertLayer"),
    (_namesake, "it is mine.BertLayer; wanted BertLayer"),
    (_other_layer, "it is .*BertIntermediate; wanted BertLayer"),
    (_norm, "BertLayer.output.LayerNorm is .*RMSNorm"),
    (_their_norm, "a norm is .*LlamaRMSNorm; wanted LayerNorm over"),
    (_norm_over_two_axes, "a norm is .*LayerNorm; wanted LayerNorm over the last axis"),
    (_decoder, "it is a decoder's"),
    (_cross, "it is a decoder's"),
    (_other_layout, "laid out otherwise: .*LayerNorm"),
    (lambda model: model.encoder.layer[1].output.dropout.train(), "dropout is in training mode"),
]


@pytest.mark.parametrize(("change", "why"), CHANGES)
def test_what_a_program_cannot_state_is_said(change, why):
    model = build("bert")
    backbone = backbone_for(model)
    assert isinstance(program_of(backbone), Program)
    change(model)
    assert_refused(backbone, "bert, layer 2: .*" + why)


def assert_refused(backbone: Backbone, why: str) -> None:
    refused = program_of(backbone)
    assert isinstance(refused, NotLowered)
    assert "\n" not in refused.why
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(refused.why)


class Doubling(BertBackbone):
    """A subclass may compute something else."""


def test_backbones_and_activations_without_a_program():
    assert_refused(backbone_for(build("deberta-v2")), "deberta-v2: its scores compare")
    assert_refused(Doubling(build("bert")), "bert: no program is written for Doubling")
    for act in ("quick_gelu", "tanh"):
        assert_refused(
            backbone_for(build("bert", hidden_act=act)),
            "bert, layer 1: the activation is .*; wanted one of gelu, gelu_tanh, relu, silu",
        )
    with torch.device("meta"):
        empty = type(build("bert"))(build("bert").config).eval()
    assert_refused(backbone_for(empty), "bert, layer 1: .* on the meta device")
    model = pictures.build("ViT")
    model.config._attn_implementation = "flex_attention"
    assert_refused(backbone_for(model), "vit: attn_implementation is 'flex_attention'")


def test_hooks_by_which_transformers_records_outputs_are_no_obstacle():
    model = build("bert")
    model(**tokens(1, 4, "none"), output_hidden_states=True, output_attentions=True)
    assert any(module._forward_hooks for module in model.encoder.modules())
    assert isinstance(program_of(backbone_for(model)), Program)
