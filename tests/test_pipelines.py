"""transformers' pipelines around eefast's models."""

import warnings

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers import (
    BertForSequenceClassification,
    BertTokenizerFast,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
    pipeline,
)

from eefast import attach_exits, compile
from eefast.policies import Confidence
from tests.models import tiny_model

TEXTS = ["a good movie", "bad", "a very very bad movie", "movie", "very good"]


@pytest.fixture
def model():
    return tiny_model()


@pytest.fixture
def tokenizer(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "movie", "a", "very"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    return BertTokenizerFast(str(tmp_path / "vocab.txt"), model_max_length=40)


@pytest.fixture(autouse=True)
def no_complaint(caplog):
    with caplog.at_level("WARNING"):
        yield
    assert "not supported" not in caplog.text


def test_each_answer_has_label_score_and_exit_layer(model, tokenizer):
    fast = compile(model, Confidence(0.6))
    pipe = pipeline("text-classification", model=fast, tokenizer=tokenizer)
    answers, together = pipe(TEXTS), pipe(TEXTS, batch_size=5)
    outs = [fast(**tokenizer(text, return_tensors="pt")) for text in TEXTS]
    assert len({out.exit_layer.item() for out in outs}) > 1
    for out, answer, other in zip(outs, answers, together, strict=True):
        assert answer.keys() == {"label", "score", "exit_layer"}
        assert answer["label"] == model.config.id2label[out.prediction.item()] == other["label"]
        assert answer["score"] == pytest.approx(out.logits.softmax(-1).max().item(), abs=1e-5)
        assert answer["exit_layer"] == out.exit_layer.item() == other["exit_layer"]
        assert other["score"] == pytest.approx(answer["score"], abs=1e-4)
    best = pipe(TEXTS[0], top_k=2)
    assert [label["exit_layer"] for label in best] == [answers[0]["exit_layer"]] * 2


def test_full_depth_is_said_and_takes_batches_of_any_size(model, tokenizer, tmp_path):
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    for given in (dict(model=model, tokenizer=tokenizer), dict(model=str(tmp_path))):
        with pytest.warns(UserWarning, match=r"at full depth.*eefast\.compile"):
            pipe = pipeline("text-classification", **given)
        answers = pipe(TEXTS, batch_size=5)  # more than there are exits
        assert len(answers) == 5
        assert all(answer.keys() == {"label", "score"} for answer in answers)


def test_other_models_get_transformers_own_pipeline(model, tokenizer):
    other = BertForSequenceClassification(model.config.backbone_config)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipe = pipeline("text-classification", model=other, tokenizer=tokenizer)
    assert type(pipe) is transformers.TextClassificationPipeline
    assert pipe("bad")[0].keys() == {"label", "score"}


def test_images_have_an_exit_layer_too():
    torch.manual_seed(0)
    sizes = dict(hidden_size=16, num_attention_heads=2, intermediate_size=16)
    vit = ViTConfig(**sizes, num_hidden_layers=2, image_size=16, patch_size=8)
    fast = compile(attach_exits(ViTModel(vit), num_labels=3).eval(), Confidence(0.0))
    processor = ViTImageProcessor(size={"height": 16, "width": 16})
    pipe = pipeline("image-classification", model=fast, image_processor=processor)
    picture = Image.fromarray(np.zeros((16, 16, 3), dtype=np.uint8))
    for answer in pipe([picture, picture], batch_size=2, top_k=2):
        assert [label["exit_layer"] for label in answer] == [1, 1]
