"""Attaching exits: what is shared with the model, and what is refused."""

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
)

from eefast import attach_exits
from tests.models import tiny_model


def test_attach_takes_the_backbone_of_a_task_model_and_its_class_names():
    task = BertForSequenceClassification(
        BertConfig(
            vocab_size=99, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=32, id2label={0: "no", 1: "yes", 2: "maybe"},
            label2id={"no": 0, "yes": 1, "maybe": 2},
        )
    )  # fmt: skip
    model = attach_exits(task, init="fresh")
    assert model.config.id2label == {0: "no", 1: "yes", 2: "maybe"}
    assert model.config.num_labels == 3
    assert model.backbone.embeddings is task.bert.embeddings  # weights are shared,
    assert task.bert.pooler is not None  # and the caller's model is unchanged
    assert model.backbone.pooler is None
    assert attach_exits(task, num_labels=5).config.num_labels == 5


def test_attach_keeps_the_backbones_weights_and_mode():
    config = BertConfig(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    base = BertModel(config).bfloat16().eval()
    before = {name: weight.clone() for name, weight in base.named_parameters()}
    model = attach_exits(base)
    assert all(torch.equal(before[name], weight) for name, weight in base.named_parameters())
    assert not model.training
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_exits_must_be_layers():
    for exits in ([0, 4], [1, 2], [4, 1], [1, 1, 4], [], [5]):
        with pytest.raises(ValueError, match=r"ending with the last layer \(4\)"):
            tiny_model(exits=exits)
    with pytest.raises(ValueError, match="'all' or a list of layers, got 'some'"):
        tiny_model(exits="some")


def test_options_must_be_known_and_sound():
    with pytest.raises(TypeError, match=r"unknown options \['heads'\]"):
        tiny_model(heads="pooler")
    for bad, message in (
        (dict(num_labels=0), "num_labels must be 1 or more, got 0"),
        (dict(num_labels="3"), "num_labels must be 1 or more, got '3'"),
        (
            dict(num_labels=3, id2label={0: "a", 1: "b"}),
            "num_labels must be 2, as many as id2label",
        ),
        (dict(id2label={}), "id2label must name the classes 0, 1, 2, ... without a gap"),
        (dict(id2label={0: "a", 2: "b"}), "without a gap"),
        (dict(label2id={"a": 0, "b": 2}), "without a gap"),
        (dict(label2id=["a", "b"]), "label2id must be a dictionary"),
        (dict(id2label={0: "a", 1: "b"}, label2id={"a": 1, "b": 0}), "must be inverses"),
        (dict(id2label={0: "a", 1: "a"}), "must be inverses"),
        (dict(head_dropout=float("nan")), r"head_dropout must be a number in \[0, 1\), got nan"),
    ):
        with pytest.raises(ValueError, match=message):
            tiny_model(**bad)
    for exits in ([2.0, 4.0], ["2", "4"]):
        with pytest.raises(ValueError, match="exits must be whole numbers"):
            tiny_model(exits=exits)
    for names in (dict(id2label={0: "a", 1: "b"}), dict(label2id={"b": 1, "a": 0})):
        model = tiny_model(**names)
        assert model.config.id2label == {0: "a", 1: "b"}
        assert model.config.label2id == {"a": 0, "b": 1}


def test_every_option_of_the_heads_arrives():
    model = tiny_model(head="pooler", share_pooler=True, head_dropout=0.4)
    assert len(model.heads.poolers) == 1
    assert model.heads.dropout.p == 0.4
    assert model.config.share_pooler
    model = tiny_model(share_head=True)
    assert len(model.heads.classifiers) == 1
    assert model.config.share_head
