"""Inputs that a model cannot take: one clear line at the door, compiled or not."""

import pytest
import torch

from eefast import compile
from eefast.policies import Confidence
from tests.models import inputs_for, tiny_model

MODEL = tiny_model()
IDS = inputs_for(MODEL, 2)["input_ids"]
EMBEDDED = torch.rand(2, 12, 32)

BAD = {
    "list": (dict(input_ids=IDS.tolist()), TypeError, "input_ids: got list; wanted a tensor"),
    "text": (dict(input_ids="hello"), TypeError, "input_ids: got str; wanted a tensor"),
    "numpy": (dict(input_ids=IDS.numpy()), TypeError, "input_ids: got ndarray; wanted a tensor"),
    "mask in a list": (
        dict(input_ids=IDS, attention_mask=[[1] * 12] * 2), TypeError, "attention_mask: got list",
    ),
    "float ids": (
        dict(input_ids=IDS.float()), ValueError, r"input_ids: got torch\.float32; wanted .*int64",
    ),
    "whole vectors": (
        dict(inputs_embeds=EMBEDDED.long()), ValueError, r"inputs_embeds: got torch\.int64",
    ),
    "complex mask": (
        dict(input_ids=IDS, attention_mask=torch.ones(2, 12, dtype=torch.complex64)),
        ValueError, r"attention_mask: got torch\.complex64",
    ),
    "unknown word": (dict(input_ids=IDS * 0 + 99), ValueError, "input_ids: got 99 to 99; .*to 98"),
    "negative": (dict(input_ids=IDS * 0 - 1), ValueError, "input_ids: got -1 to -1"),
    "token type": (
        dict(input_ids=IDS, token_type_ids=IDS * 0 + 2), ValueError,
        "token_type_ids: got 2 to 2; wanted 0 to 1",
    ),
    "position": (
        dict(input_ids=IDS, position_ids=IDS * 0 + 40), ValueError,
        "position_ids: got 40 to 40; wanted 0 to 39",
    ),
    "wide vectors": (
        dict(inputs_embeds=torch.rand(2, 12, 33)), ValueError,
        r"inputs_embeds: got shape \[2, 12, 33\]; wanted \[B, T, 32\]",
    ),
    "short mask": (
        dict(input_ids=IDS, attention_mask=torch.ones(2, 11)), ValueError,
        r"attention_mask: got shape \[2, 11\]; wanted \[2, 12\], as input_ids",
    ),
    "meta": (dict(input_ids=IDS.to("meta")), ValueError, "input_ids: got device meta; wanted cpu"),
    "meta mask": (
        dict(input_ids=IDS, attention_mask=IDS.to("meta")), ValueError, "mask: got device meta",
    ),
    "few labels": (
        dict(input_ids=IDS, labels=torch.tensor([1])), ValueError, r"labels must be \[2\], got",
    ),
    "float labels": (
        dict(input_ids=IDS, labels=torch.tensor([0.5, 1])), ValueError, "labels must be integers",
    ),
    "listed labels": (dict(input_ids=IDS, labels=[0, 1]), TypeError, "labels must be a tensor"),
}  # fmt: skip


@pytest.mark.parametrize("runtime", [None, "direct", "sync"])
@pytest.mark.parametrize("bad", BAD)
def test_what_cannot_be_taken_is_named(bad, runtime):
    model = MODEL if runtime is None else compile(MODEL, Confidence(0.7), runtime=runtime)
    inputs, error, message = BAD[bad]
    with pytest.raises(error, match=message):
        model(**inputs)


def test_what_is_no_fault_of_the_inputs_is_told_as_it_is(monkeypatch):
    def broken(**_):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(MODEL.backbone.embeddings, "forward", broken)
    for model in (MODEL, compile(MODEL, Confidence(0.7))):
        with pytest.raises(RuntimeError, match="out of luck"):
            model(IDS)


def test_whole_numbers_of_32_bits_are_ids():
    assert torch.equal(MODEL(IDS.int()).logits, MODEL(IDS).logits)
