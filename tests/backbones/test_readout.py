"""What exits read: the family's own vector, or another that was asked for."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import BertForSequenceClassification

import eefast
from eefast import MultiExitModel, attach_exits, record_trace, simulate
from eefast.backbones import GenericBackbone, backbone_for, gathered, study
from eefast.backbones.masks import mean_of_shown
from eefast.policies import Confidence

from ..models import inputs_for, tiny_model
from .families import FAMILIES, adapter, build, model_of, tokens


@pytest.mark.parametrize("padding", [None, "left", "right"])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_mean_is_over_the_tokens_that_are_shown(name: str, padding: str | None) -> None:
    model = model_of(name, FAMILIES[name].attention[0], torch.float32)
    backbone = backbone_for(model, readout="mean")
    inputs = tokens(3, padding=padding)
    rows = torch.tensor([2, 0])
    with torch.no_grad():
        hidden, context = backbone.start(inputs)
        states = model.final_norm(hidden) if name.startswith("modernbert") else hidden
        shown = inputs.get("attention_mask", torch.ones(hidden.shape[:2])) != 0
        wanted = torch.stack([h[s].mean(0) for h, s in zip(states, shown, strict=True)])
        torch.testing.assert_close(gathered(*backbone.readout(1, hidden, context)), wanted)
        fewer = gathered(*backbone.readout(1, hidden[rows], context.select(rows)))
        torch.testing.assert_close(fewer, wanted[rows])


@pytest.mark.parametrize("name", [*FAMILIES, "generic"])
def test_the_mean_of_a_text_without_a_token_is_zero(name: str) -> None:
    inputs = tokens(3, padding="right")
    hides_all = {**inputs, "attention_mask": inputs["attention_mask"].clone()}
    hides_all["attention_mask"][1] = 0
    if name == "generic":
        model = build("bert").eval()
        backbone = GenericBackbone(model, study(model))
        backbone.choose_readout("mean")
    else:
        model = model_of(name, FAMILIES[name].attention[0], torch.float32)
        backbone = backbone_for(model, readout="mean")
    with torch.no_grad():
        vectors = []
        for batch in (inputs, hides_all):
            hidden, context = backbone.start(batch)
            hidden = backbone.layer(1, hidden, context)
            vectors.append(gathered(*backbone.readout(1, hidden, context)))
    assert not vectors[1][1].any()
    assert torch.equal(vectors[0][::2], vectors[1][::2])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_hidden_is_not_in_the_mean_whatever_it_is(value: float) -> None:
    hidden = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [value, value]]] * 2).requires_grad_()
    shown = torch.tensor([[True, True, False], [False, False, False]])
    mean = mean_of_shown(hidden, shown)
    assert mean.tolist() == [[2.0, 4.0], [0.0, 0.0]]
    mean.sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.tolist() == [[[0.5] * 2] * 2 + [[0.0] * 2], [[0.0] * 2] * 3]


@pytest.mark.parametrize("readout", ["first", "last", "mean"])
def test_the_generic_backbone_reads_what_is_asked_for(readout: str) -> None:
    model = build("bert").eval()
    backbone = GenericBackbone(model, study(model))
    backbone.choose_readout(readout)
    inputs = tokens(3, padding="right")
    with torch.no_grad():
        hidden, context = backbone.start(inputs)
        vectors = gathered(*backbone.readout(1, hidden, context))
    ends = (inputs["input_ids"] != model.config.pad_token_id).sum(1)
    wanted = {
        "first": lambda h, end: h[0],
        "last": lambda h, end: h[end - 1],
        "mean": lambda h, end: h[:end].mean(0),
    }[readout]
    expected = torch.stack([wanted(h, end) for h, end in zip(hidden, ends, strict=True)])
    torch.testing.assert_close(vectors, expected)


def test_other_readouts_are_refused() -> None:
    with pytest.raises(ValueError, match="a bert model can be read by 'first', 'mean'; got 'last'"):
        adapter("bert").choose_readout("last")
    with pytest.raises(ValueError, match="readout: a bert model can be read by"):
        tiny_model(readout=["mean"])


def test_a_model_read_by_the_mean_is_compiled_and_saved(tmp_path: Path) -> None:
    model = tiny_model(readout="mean")
    batch = {**inputs_for(model, 24, padded=True), "labels": torch.arange(24) % 3}
    batch["attention_mask"][5] = 0  # an empty text has an answer, too
    model(**batch).loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    trace = record_trace(model, [batch])
    other = record_trace(tiny_model(), [batch])
    assert not torch.equal(trace.logits, other.logits)  # of the first token
    policy = Confidence(0.6)
    outcome = simulate(policy, trace)
    assert len(outcome.exit.unique()) > 2  # so that rows were evicted on the way
    model.save_pretrained(tmp_path)
    for one in (model, MultiExitModel.from_pretrained(tmp_path)):
        out = eefast.compile(one, policy)(**{k: batch[k] for k in batch if k != "labels"})
        assert torch.equal(out.exit_layer.long(), outcome.exit_layer)
        assert torch.equal(out.prediction.long(), outcome.prediction)


def test_a_trained_head_that_reads_something_else_is_not_kept() -> None:
    config = tiny_model().config.backbone_config
    task = BertForSequenceClassification(config)
    assert attach_exits(task, head="pooler", init="keep", readout="first").config.readout == "first"
    with pytest.raises(ValueError, match="has no 'pooler' head"):
        attach_exits(task, head="pooler", init="keep", readout="mean")
