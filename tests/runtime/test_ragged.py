"""Batches without padding: as each text alone, for every family and whatever its exits read."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

import eefast
from eefast.lowering import PRECISIONS
from eefast.policies import Budgeted, Confidence, Never

from ..backbones import test_vit as pictures
from ..backbones.families import PAD, build
from ..lowering.test_packed import rms
from ..models import inputs_for, tiny_model
from .test_packed_stages import Ops

FAMILIES = ["bert", "distilbert", "mpnet", "modernbert"]
# PyTorch makes their embeddings, by a matrix product that rounds otherwise in another batch.
PROJECTED = ["albert", "electra-narrow"]
READOUTS = ("first", "mean")
TOKENS = 20  # the windows of ModernBERT, of 8 on each side, hide from 10 on


@cache
def model_of(name: str, readout: str) -> eefast.MultiExitModel:
    model = eefast.attach_exits(
        build(name, max_position_embeddings=TOKENS + 2), head="linear", readout=readout
    ).eval()
    with torch.no_grad():
        for classifier in model.heads.classifiers:  # so that samples leave at different exits
            classifier.weight.normal_(0, 0.3, generator=torch.Generator().manual_seed(0))
    return model


def texts() -> dict[str, Tensor]:
    """Of lengths from 1 to 20; one hides its first tokens, and one a token in the middle."""
    g = torch.Generator().manual_seed(0)
    lengths = torch.tensor([20, 1, 7, 16, 17, 3, 12, 20, 9])
    mask = (torch.arange(TOKENS) < lengths[:, None]).long()
    mask[6, :4] = 0
    mask[7, 10] = 0
    ids = torch.randint(PAD + 1, 60, mask.shape, generator=g)
    return {"input_ids": ids.where(mask != 0, PAD), "attention_mask": mask}


def alone(inputs: dict[str, Tensor], sample: int) -> dict[str, Tensor]:
    """A text without the padding behind it; its mask, where it hides something."""
    mask = inputs["attention_mask"][sample : sample + 1]
    length = int(mask[0].nonzero().max()) + 1
    own = {"input_ids": inputs["input_ids"][sample : sample + 1, :length]}
    return own if mask[0, :length].all() else {**own, "attention_mask": mask[:, :length]}


def assert_equal(ours: Any, theirs: Any) -> None:
    for name in ("exit_layer", "prediction", "score", "logits"):
        assert torch.equal(ours[name], theirs[name]), name


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_batch_gives_what_its_texts_give_alone(name, readout, precision):
    fast, inputs = eefast.compile(model_of(name, readout), Never(), dtype=precision), texts()
    fast.policy = Budgeted(1)
    middle = fast(**inputs).logits.softmax(-1).amax(-1).median().item()
    fast.policy = Confidence(threshold=middle)
    with Ops() as ops:
        together = fast(**inputs)
    assert ops.called["packed_stages"] == 1
    assert len(together.exit_layer.unique()) > 1
    for sample in range(len(inputs["input_ids"])):
        expected = {name: together[name][sample : sample + 1] for name in together}
        assert_equal(fast(**alone(inputs, sample)), expected)
    order = torch.randperm(len(inputs["input_ids"]), generator=torch.Generator().manual_seed(1))
    shuffled = fast(**{name: tensor[order] for name, tensor in inputs.items()})
    assert_equal(shuffled, {name: together[name][order] for name in together})


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("name", FAMILIES + PROJECTED)
def test_logits_are_those_of_the_model(name, readout):
    """By the error in float32 that the model's own layers have against fp64."""
    model, inputs = model_of(name, readout), texts()
    fast = eefast.compile(model, Never(), dtype="float32")
    one_by_one = [alone(inputs, sample) for sample in range(len(inputs["input_ids"]))]
    double = copy.deepcopy(model).double()
    with torch.no_grad():  # alone, because transformers gives NaN where a window is all padding
        exact, theirs = (
            [torch.cat(of_exit) for of_exit in zip(*found, strict=True)]
            for found in ([m(**one).exit_logits for one in one_by_one] for m in (double, model))
        )
    for layer, (true, own) in enumerate(zip(exact, theirs, strict=True), 1):
        fast.policy = Budgeted(layer)
        rounding = 4 * torch.finfo(torch.float32).eps * rms(true)
        assert rms(fast(**inputs).logits - true) <= 3 * rms(own - true) + rounding, layer


@pytest.mark.parametrize("precision", PRECISIONS)
def test_pictures_are_read_past_the_final_norm(precision):
    model = eefast.attach_exits(pictures.build("ViT"), head="linear").eval()
    fast, given = eefast.compile(model, Never(), dtype=precision), pictures.images(3)
    with Ops() as ops:
        together = fast(**given)
    assert ops.called["packed_stages"] == 1
    for sample in range(3):
        one = fast(pixel_values=given["pixel_values"][sample : sample + 1])
        assert torch.equal(one.logits, together.logits[sample : sample + 1])
    plain = eefast.compile(model, Never(), dtype=precision, runtime="sync")(**given)
    torch.testing.assert_close(together.logits, plain.logits, rtol=1e-5, atol=1e-5)


def test_a_final_norm_with_hooks_runs_as_it_is():
    model = copy.deepcopy(model_of("modernbert", "first"))
    called: list[Any] = []
    model.backbone.final_norm.register_forward_hook(lambda *_: called.append(_))
    fast = eefast.compile(model, Never(), dtype="float32")
    with Ops() as ops:
        fast(**texts())
    assert called
    assert ops.called["packed_stages"] == 0


def test_a_text_that_is_hidden_altogether_keeps_all_its_tokens():
    for readout in ("first", "mean"):
        model, inputs = model_of("bert", readout), texts()
        inputs["attention_mask"][3] = 0
        fast = eefast.compile(model, Never(), dtype="float32")
        logits = fast(**inputs).logits
        only = {name: tensor[3:4] for name, tensor in inputs.items()}
        assert torch.equal(fast(**only).logits, logits[3:4])
        with torch.no_grad():
            torch.testing.assert_close(logits, model(**inputs).logits, rtol=1e-4, atol=1e-4)


def test_weights_of_the_final_norm_are_the_models_own():
    model = copy.deepcopy(model_of("modernbert", "first"))
    fast = eefast.compile(model, Never(), dtype="float32")
    before = fast(**texts()).logits
    with torch.no_grad():
        fast.model.backbone.final_norm.weight.mul_(2)
    assert not torch.equal(fast(**texts()).logits, before)


def test_many_texts_exit_in_any_order():
    """Rows move together behind each exit, some of them over their own old places."""
    model = tiny_model(layers=6)
    fast = eefast.compile(model, Confidence(threshold=0.7), dtype="float32")
    inputs = inputs_for(model, 64, 30, padded=True)
    together = fast(**inputs)
    assert len(together.exit_layer.unique()) > 4
    for sample in range(64):
        expected = {name: together[name][sample : sample + 1] for name in together}
        assert_equal(fast(**alone(inputs, sample)), expected)
