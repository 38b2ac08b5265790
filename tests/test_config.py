"""What a config or a checkpoint may hold."""

import json

import pytest
from transformers import AutoModelForSequenceClassification

from eefast import MultiExitConfig, MultiExitModel
from tests.models import tiny_model

NUMBER = r"head_dropout must be a number in \[0, 1\), got"
NAMES = "id2label must name the classes 0, 1, 2, ... without a gap, got"
BAD = [
    (dict(head_dropout=float("nan")), NUMBER),
    (dict(head_dropout=1.0), NUMBER),
    (dict(head_dropout=-0.1), NUMBER),
    (dict(head_dropout="0.1"), NUMBER),
    (dict(id2label={}), NAMES),
    (dict(id2label={"0": "a", "2": "b"}), NAMES),
    (dict(id2label={"a": "0"}), NAMES),
    (dict(id2label=["a", "b"]), NAMES),
    (dict(num_labels="3"), "num_labels must be 1 or more, got '3'"),
    (dict(num_labels=True), "num_labels must be 1 or more, got True"),
    (dict(num_labels=2.5), "num_labels must be 1 or more, got 2.5"),
    (dict(policies=["beem"]), r"policies must be a dictionary, got \['beem'\]"),
    (dict(policies={"beem": 5}), r"policies\['beem'\] must be a dictionary, got 5"),
    (dict(objective_options=5), "objective_options must be a dictionary, got 5"),
    (dict(anatomy="bert"), "anatomy must be a dictionary, got 'bert'"),
    (dict(backbone_config=5), "backbone_config must be a transformers config.*got 5"),
    (dict(backbone_config="bert"), "backbone_config must be a transformers config"),
    (dict(backbone_config={}), "backbone_config must be a transformers config"),
    (dict(backbone_config={"model_type": 5}), "backbone_config must be a transformers config"),
    (dict(attn_implementation="owner/kernel"), "'eager' or 'sdpa', got 'owner/kernel'"),
    (dict(attn_implementation={"": "owner/kernel"}), "'eager' or 'sdpa', got"),
    (
        dict(backbone_config={"model_type": "bert", "attn_implementation": "owner/kernel"}),
        "'eager' or 'sdpa', got 'owner/kernel'",
    ),
]


@pytest.mark.parametrize(("bad", "message"), BAD)
def test_what_a_config_cannot_hold(bad, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        MultiExitConfig(**bad)
    model = tiny_model(layers=1)
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **bad}))
    with pytest.raises(ValueError, match=message):
        MultiExitModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("content", [[1, 2], "eefast", 5, None])
def test_a_config_file_of_another_kind(content, tmp_path):
    tiny_model(layers=1).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"its config\.json must hold an object"):
        MultiExitModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["owner/kernel", "flash_attention_2", "hope", 5])
def test_attention_that_would_be_downloaded_or_gets_no_mask(name, tmp_path):
    model = tiny_model(layers=1)
    model.save_pretrained(tmp_path)
    refused = pytest.raises(ValueError, match=r"attn_implementation must be 'eager' or 'sdpa'")
    with refused:
        MultiExitModel.from_pretrained(tmp_path, attn_implementation=name)
    with refused:
        AutoModelForSequenceClassification.from_pretrained(tmp_path, attn_implementation=name)
    config = MultiExitConfig.from_pretrained(tmp_path)
    with refused:
        MultiExitModel.from_pretrained(tmp_path, config=config, attn_implementation=name)
    with refused:
        model.set_attn_implementation(name)
    model.set_attn_implementation("eager")
    assert model.backbone.config._attn_implementation == "eager"
