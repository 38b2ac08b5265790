"""A forward over the inputs of the model's own: what it takes, and what its signature says."""

import inspect
import pickle
from copy import deepcopy

import pytest
import torch

from eefast import attach_exits, compile
from eefast.policies import Never
from tests.backbones.families import model_of
from tests.models import inputs_for, tiny_model

NAMES = ["input_ids", "attention_mask", "token_type_ids", "position_ids", "inputs_embeds"]


@pytest.fixture(scope="module", params=["model", "compiled"])
def called(request):
    model = tiny_model()
    return model if request.param == "model" else compile(model, Never())


def test_the_signature_names_the_inputs_of_the_model_s_own_forward(called):
    assert list(inspect.signature(called.forward).parameters) == [*NAMES, "labels", "return_dict"]
    # Of the class, what every model has: transformers looks for labels there.
    of_class = inspect.signature(type(called).forward).parameters
    assert list(of_class) == ["self", "labels", "return_dict"]


def test_a_family_s_own_signature():
    model = attach_exits(model_of("distilbert", "sdpa", torch.float32))
    theirs = list(inspect.signature(model.backbone.forward).parameters)
    ours = list(inspect.signature(model.forward).parameters)[:-2]
    assert ours == theirs[: len(ours)] == ["input_ids", "attention_mask", *NAMES[4:2:-1]]


def test_by_position_or_by_name(called):
    inputs = inputs_for(tiny_model(), 3, padded=True)
    ids, mask = inputs.values()
    wanted = called(**inputs).logits
    assert torch.equal(called(ids, mask).logits, wanted)
    assert torch.equal(called(ids, attention_mask=mask, position_ids=None).logits, wanted)
    assert torch.equal(called(*(ids, mask, None, None, None), return_dict=False)[0], wanted)


def test_misfits_are_named(called):
    ids = torch.ones(1, 3, dtype=torch.int64)
    with pytest.raises(TypeError, match="unexpected input 'pixel_values'"):
        called(ids, pixel_values=ids)
    with pytest.raises(TypeError, match="multiple values for 'input_ids'"):
        called(ids, input_ids=ids)
    with pytest.raises(TypeError, match=r"forward takes 5 inputs .input_ids, .* got more"):
        called(ids, None, None, None, None, None)
    with pytest.raises(ValueError, match="input_ids, inputs_embeds: got neither"):
        called(attention_mask=ids)


@pytest.mark.parametrize("copied", [deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_called_alike(called, copied):
    inputs = inputs_for(tiny_model(), 3)
    assert torch.equal(copied(called)(**inputs).logits, called(**inputs).logits)
