"""Exits that start from the head that a task model was trained with."""

import pytest
import torch
import transformers as t

from eefast import attach_exits
from eefast.backbones.generic.signature import random_inputs
from tests.backbones.test_generic import FAMILIES as WALKED

FAMILIES = {
    **WALKED,
    "Beit": WALKED["ViT"],
    "CLIP": {"vision_config": WALKED["ViT"], "text_config": WALKED["Bert"]},
    "ConvNext": {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "image_size": 32},
}


def task(name, kind="SequenceClassification"):
    torch.manual_seed(0)
    config = getattr(t, f"{name}Config")(**FAMILIES[name], num_labels=3)
    model = getattr(t, f"{name}For{kind}")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize(
    ("name", "kind", "head"),
    [
        ("Bert", "SequenceClassification", "pooler"),
        ("GPT2", "SequenceClassification", "linear"),
        ("Llama", "SequenceClassification", "linear"),
        ("ViT", "ImageClassification", "linear"),
        ("ResNet", "ImageClassification", "linear"),
        ("Swin", "ImageClassification", "linear"),
        ("Beit", "ImageClassification", "linear"),
        ("CLIP", "ImageClassification", "linear"),
        ("ConvNext", "ImageClassification", "linear"),
    ],
)
def test_the_last_exit_answers_as_the_task_model(name, kind, head):
    model = task(name, kind)
    attached = attach_exits(model, head=head)
    inputs = random_inputs(attached.backbone, 3)
    with torch.no_grad():
        torch.testing.assert_close(attached(**inputs).logits, model(**inputs).logits)
        first = attached(**inputs).exit_logits[0]
    fresh = attach_exits(model, head=head, init="fresh")
    assert not torch.allclose(fresh(**inputs).logits, model(**inputs).logits)
    assert first.shape == (3, 3)


def test_all_exits_may_start_from_it():
    model = task("Bert")
    attached = attach_exits(model, head="pooler", init="copy")
    for exit in (1, 2, 3):
        assert torch.equal(attached.heads.weights(exit).weight, model.classifier.weight)
    attached.heads.classifiers[0].weight.data.zero_()  # copies, not the model's own
    assert model.classifier.weight.abs().sum() > 0


def test_heads_of_another_kind_are_new_and_said_to_be():
    model = task("Bert")
    why = "no 'linear' head for 3 classes.*trained with a 'pooler' head: head='pooler' keeps that"
    with pytest.warns(UserWarning, match=f"{why}.*all exits start anew, untrained"):
        attach_exits(model, head="linear")
    with pytest.raises(ValueError, match=rf"{why}.*init='keep' needs one \(another `head`"):
        attach_exits(model, head="linear", init="keep")
    with pytest.warns(UserWarning, match="with which the last exit would answer as it does: all"):
        attach_exits(model, head="linear", readout="mean")  # of which there is no trained head
    with pytest.raises(ValueError, match="no 'pooler' head for 5 classes"):
        attach_exits(model, head="pooler", init="keep", num_labels=5)
    with pytest.raises(ValueError, match=r"init must be .*'hope'"):
        attach_exits(model, init="hope")


@pytest.mark.parametrize(
    "kind", ["TokenClassification", "QuestionAnswering", "MaskedLM", "MultipleChoice"]
)
def test_other_tasks_are_refused_by_name(kind):
    model = getattr(t, f"BertFor{kind}")(t.BertConfig(**FAMILIES["Bert"]))
    with pytest.raises(ValueError, match=f"got a BertFor{kind}.*model.base_model"):
        attach_exits(model)
    assert attach_exits(model.base_model).num_exits == 3


def test_adapters_have_to_be_merged_first():
    class PeftModel(torch.nn.Module):
        def merge_and_unload(self):
            pass

    with pytest.raises(TypeError, match=r"PeftModel.*merge_and_unload\(\) first"):
        attach_exits(PeftModel())


def test_modes_and_random_numbers_stay():
    model = task("Bert").train()
    torch.manual_seed(1)
    attach_exits(model, head="pooler", init="fresh")
    expected = torch.rand(1)
    torch.manual_seed(1)
    attach_exits(model, head="pooler")
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scales_of_a_whole_batch_are_refused_by_name():
    model = task("Bert").base_model
    quantised = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear})
    with pytest.raises(ValueError, match=r"dynamically quantised Linear.*quantize_dynamic"):
        attach_exits(quantised)
