"""Running, saving, loading and training a multi-exit model."""

import copy
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForAudioClassification,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    DistilBertConfig,
    DistilBertModel,
    Trainer,
    TrainingArguments,
    ViTConfig,
    ViTModel,
)

from eefast import MultiExitModel, attach_exits
from eefast.policies import BEEM, PABEE
from tests.models import inputs_for, tiny_model


@pytest.mark.parametrize("cascade", [False, True])
def test_exit_logits_are_the_heads_of_transformers_hidden_states(cascade):
    model = tiny_model(exits=[1, 3, 4], cascade=cascade)
    inputs = inputs_for(model, 5, padded=True)
    out = model(**inputs)
    hidden = model.backbone(**inputs, output_hidden_states=True).hidden_states
    for i, layer in enumerate((1, 3, 4)):
        wanted, _ = model.heads(i + 1, hidden[layer][:, 0], out.exit_logits[i - 1])
        torch.testing.assert_close(out.exit_logits[i], wanted)
    assert torch.equal(out.logits, out.exit_logits[-1])
    assert out.loss is None


@pytest.mark.parametrize(
    "options",
    [
        {},
        dict(exits=[2, 4]),
        dict(head="pooler"),
        dict(head="pooler", share_pooler=True, objective="weighted"),
        dict(head="pooler", share_head=True),
        dict(objective="ztw"),
    ],
)
def test_save_and_load(tmp_path, options):
    model = tiny_model(**options)
    model.set_policy(BEEM.cost(model.num_exits, 1.2))
    model.set_policy(PABEE(1))
    model.save_pretrained(tmp_path)
    assert [f.name for f in tmp_path.glob("*.safetensors")]
    loaded = MultiExitModel.from_pretrained(tmp_path)
    assert loaded.config.exits == model.config.exits
    assert loaded.config.objective == model.config.objective
    assert loaded.config.cascade == (model.config.objective == "ztw")
    assert loaded.get_policy("beem") == BEEM.cost(model.num_exits, 1.2)
    assert loaded.get_policy("pabee") == PABEE(1)
    assert loaded.get_policy("pcee") is None
    inputs = inputs_for(model, 3)
    for a, b in zip(model(**inputs).exit_logits, loaded(**inputs).exit_logits, strict=True):
        assert torch.equal(a, b)
    auto = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(auto) is MultiExitModel
    half = MultiExitModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16


def test_what_was_saved_before_there_were_cascades_has_none(tmp_path):
    model = tiny_model(objective="ztw", cascade=False)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["cascade"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert not MultiExitModel.from_pretrained(tmp_path).heads.cascades


def test_policies_are_stored_in_a_saved_folder(tmp_path):
    model = tiny_model()
    model.set_policy(PABEE(1))
    model.save_pretrained(tmp_path)
    weights = (tmp_path / "model.safetensors").stat()
    model.set_policy(PABEE(2))
    model.save_policies(tmp_path)
    assert (tmp_path / "model.safetensors").stat() == weights
    assert MultiExitModel.from_pretrained(tmp_path).get_policy("pabee") == PABEE(2)
    with pytest.raises(ValueError, match=r"exits .*\[1, 2, 3, 4\].*; wanted .*\[4\]"):
        tiny_model(exits=[4]).save_policies(tmp_path)
    with pytest.raises(FileNotFoundError):
        model.save_policies(tmp_path / "nowhere")


def test_image_and_audio_models_load_as_their_kind(tmp_path):
    torch.manual_seed(0)
    sizes = dict(hidden_size=16, num_attention_heads=2, intermediate_size=16)
    vit = ViTConfig(**sizes, num_hidden_layers=2, image_size=16, patch_size=8)
    model = attach_exits(ViTModel(vit), num_labels=3).eval()
    inputs = {"pixel_values": torch.randn(2, 3, 16, 16)}
    model.save_pretrained(tmp_path)
    for auto in (AutoModelForImageClassification, AutoModelForAudioClassification):
        loaded = auto.from_pretrained(tmp_path)
        assert type(loaded) is MultiExitModel
        assert loaded.main_input_name == "pixel_values"
        with torch.no_grad():
            assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)


def test_loading_refuses_missing_weights(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    del weights["heads.classifiers.2.weight"]
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(ValueError, match=r"do not fit.*heads\.classifiers\.2\.weight"):
        MultiExitModel.from_pretrained(tmp_path)


def test_loading_refuses_damaged_and_foreign_checkpoints(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path / "ours")
    path = tmp_path / "ours" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="damaged"):
        MultiExitModel.from_pretrained(tmp_path / "ours")
    model.backbone.save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match=r"model type 'bert', not a MultiExitModel.*attach_exits"):
        MultiExitModel.from_pretrained(tmp_path / "bert")
    with pytest.raises(OSError, match="no model folder"):
        MultiExitModel.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="weights_only"):
        MultiExitModel.from_pretrained(tmp_path / "ours", weights_only=False)


def test_loading_refuses_weights_of_another_shape(tmp_path):
    tiny_model(classes=3).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["id2label"] = {"0": "a", "1": "b"}
    config["label2id"] = {"a": 0, "b": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(RuntimeError, match="mismatch"):  # transformers' own refusal
        MultiExitModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("objective", ["beem", "weighted"])
def test_trainer_trains_it_unchanged(tmp_path, objective):
    model = tiny_model(classes=2, layers=2, spread=1.0, objective=objective)
    g = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 99, (64, 8), generator=g)
    data = [{"input_ids": row, "labels": int(row[1] > 49)} for row in ids]  # the 2nd token tells
    arguments = TrainingArguments(
        str(tmp_path), num_train_epochs=25, per_device_train_batch_size=16, learning_rate=3e-3,
        save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True,
        logging_strategy="no", seed=0,
    )  # fmt: skip
    seen = {}

    def metrics(prediction):
        seen["shape"] = prediction.predictions.shape
        return {"accuracy": (prediction.predictions.argmax(-1) == prediction.label_ids).mean()}

    trainer = Trainer(model, arguments, train_dataset=data, eval_dataset=data,
                      compute_metrics=metrics)  # fmt: skip
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    after = trainer.evaluate()
    assert seen["shape"] == (64, 2)  # the last exit's logits only
    assert after["eval_loss"] < 0.5 * before
    assert after["eval_accuracy"] > 0.9
    model.eval()
    out = model(ids)
    assert ((out.exit_logits[0].argmax(-1)) == (ids[:, 1] > 49)).double().mean() > 0.9


def test_outputs_as_a_tuple_and_positional_ids():
    model = tiny_model()
    ids = inputs_for(model, 2)["input_ids"]
    logits, exits = model(ids, return_dict=False)
    assert torch.equal(logits, model(ids).logits)
    assert len(exits) == 4


def test_empty_batch():
    out = tiny_model()(torch.empty(0, 5, dtype=torch.int64))
    assert out.logits.shape == (0, 3)


def test_bad_inputs():
    model = tiny_model()
    ids = inputs_for(model, 2)["input_ids"]
    with pytest.raises(ValueError, match="41 tokens per sequence; wanted 1 to 40"):
        model(torch.ones(1, 41, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"labels must be in \[0, 3\), got 1\.\.3"):
        model(ids, labels=torch.tensor([1, 3]))
    with pytest.raises(ValueError, match="unknown objective 'hope'"):
        tiny_model(objective="hope")
    with pytest.raises(ValueError, match="head must be one of"):
        tiny_model(head="mlp")
    with pytest.raises(TypeError, match="transformers PreTrainedModel"):
        attach_exits(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="calibrated for 6 exits, got 4"):
        model.set_policy(PABEE(1, num_exits=6))
    assert model.config.policies == {}


def test_numbers_of_numpy_are_saved(tmp_path):
    model = tiny_model(exits=np.array([2, 4]))
    model.set_policy(PABEE(np.int64(1), num_classes=np.int64(3)))
    model.save_pretrained(tmp_path)
    loaded = MultiExitModel.from_pretrained(tmp_path)
    assert loaded.config.exits == [2, 4]
    assert loaded.get_policy("pabee") == PABEE(1, num_classes=3)


def test_loading_refuses_weights_that_belong_to_nothing(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["heads.classifiers.9.weight"] = torch.zeros(1)
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"do not fit.*classifiers\.9"):
        MultiExitModel.from_pretrained(tmp_path)


def test_mismatched_weights_are_never_replaced_by_random_ones(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="mismatched_keys"):
        MultiExitModel.from_pretrained(tmp_path, num_labels=7, ignore_mismatched_sizes=True)


def test_resized_embeddings_are_saved(tmp_path):
    model = tiny_model()
    model.resize_token_embeddings(120)
    model.save_pretrained(tmp_path)
    loaded = MultiExitModel.from_pretrained(tmp_path)
    assert loaded.backbone.embeddings.word_embeddings.num_embeddings == 120


def test_token_types_are_left_out_where_a_family_has_none():
    config = DistilBertConfig(vocab_size=99, dim=16, n_layers=2, n_heads=2, hidden_dim=32)
    model = attach_exits(DistilBertModel(config)).eval()
    ids = torch.ones(2, 5, dtype=torch.int64)
    assert torch.equal(model(ids, token_type_ids=ids).logits, model(ids).logits)


def test_two_models_of_one_config_do_not_share_policies():
    model = tiny_model()
    other = MultiExitModel(copy.deepcopy(model.config))
    other.set_policy(PABEE(1))
    assert model.get_policy("pabee") is None
