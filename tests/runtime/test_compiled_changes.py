"""Compiled models whose weights, device, mode or layers change, and their copies."""

import copy
import pickle

import pytest
import torch

from eefast import attach_exits, compile
from eefast.policies import PABEE, BERxiT, Budgeted, Confidence, Never
from tests.backbones.families import model_of, tokens
from tests.models import inputs_for, tiny_model


@pytest.fixture
def model():
    return tiny_model()


def test_weights_changed_in_place_or_moved_are_the_ones_used(model):
    inputs = inputs_for(model, 4)
    fast = compile(model, Budgeted(1))
    with torch.no_grad():
        model.heads.classifiers[0].weight.zero_()
        model.heads.classifiers[0].bias.copy_(torch.tensor([0.0, 5.0, 0.0]))
    assert fast(**inputs).prediction.tolist() == [1] * 4
    fast.to(torch.bfloat16).to(torch.float32)  # makes new weights
    with torch.no_grad():
        model.heads.classifiers[0].bias.copy_(torch.tensor([5.0, 0.0, 0.0]))
    assert fast(**inputs).prediction.tolist() == [0] * 4


@pytest.mark.parametrize(
    ("move", "error", "message"),
    [
        (lambda fast: fast.half(), TypeError, "impl='cpp' takes .* got torch.float16"),
        (lambda fast: fast.to("meta"), ValueError, "there is no runtime for device meta"),
    ],
)
def test_a_move_to_where_it_cannot_run_is_refused_before_it_begins(model, move, error, message):
    fast, inputs = compile(model, Never()), inputs_for(model, 4)
    before = fast(**inputs)
    with pytest.raises(error, match=message):
        move(fast)
    assert (fast.device.type, fast.dtype) == ("cpu", torch.float32)
    assert torch.equal(fast(**inputs).logits, before.logits)


def test_a_runtime_asked_for_by_name_stays_on_its_device(model):
    fast = compile(model, Never(), runtime="direct")
    with pytest.raises(ValueError, match="runtime 'direct' runs on 'cpu', the model is on meta"):
        fast.to("meta")


def test_after_a_move_the_runtime_is_a_new_one(model, monkeypatch):
    fast = compile(model, Never())
    runtime, closed = fast._runtime, []  # may hold what was made for the old weights
    monkeypatch.setattr(runtime, "close", lambda: closed.append(True))
    fast.to(torch.bfloat16)
    assert fast._runtime is not runtime
    assert closed == [True]
    fast.to(torch.float32)


@pytest.mark.parametrize("make", [copy.deepcopy, lambda fast: pickle.loads(pickle.dumps(fast))])
def test_copies_and_pickles_hold_their_own_weights(model, make):
    fast, inputs = compile(model, Budgeted(1)), inputs_for(model, 4)
    twin = make(fast)
    assert torch.equal(twin(**inputs).logits, fast(**inputs).logits)
    with torch.no_grad():
        twin.model.heads.classifiers[0].bias.copy_(torch.tensor([0.0, 99.0, 0.0]))
    assert twin(**inputs).prediction.tolist() == [1] * 4
    assert fast(**inputs).logits.max() < 50


@pytest.mark.parametrize(
    "part",
    ["", "backbone", "backbone.encoder", "backbone.encoder.layer.2.attention.self",
     "backbone.encoder.layer.3.output.dropout"],
)  # fmt: skip
def test_a_model_of_which_a_part_was_put_back_into_training_is_refused(model, part):
    fast = compile(model, Never())
    model.get_submodule(part).train()
    with pytest.raises(RuntimeError, match=r"training mode.*model\.eval\(\)"):
        fast(**inputs_for(model, 1))
    model.eval()
    assert fast(**inputs_for(model, 1)).exit_layer.item() == 4


@pytest.mark.parametrize("runtime", ["direct", "sync"])
def test_a_table_written_while_a_call_runs_counts_from_the_next(model, runtime):
    inputs, fast = inputs_for(model, 4), compile(model, Confidence(2.0), runtime=runtime)

    def write(*_):
        fast.policy_table[:, 1] = 0.0

    hook = model.backbone.encoder.layer[1].register_forward_hook(write)
    assert fast(**inputs).exit_layer.tolist() == [4] * 4
    hook.remove()
    assert fast(**inputs).exit_layer.tolist() == [1] * 4


def test_a_base_model_put_into_training_by_its_owner_is_refused():
    """attach_exits shares the layers with the model it was given."""
    theirs = copy.deepcopy(model_of("bert", "sdpa", torch.float32))
    fast = compile(attach_exits(theirs, num_labels=3), Never())
    theirs.train()
    with pytest.raises(RuntimeError, match="training mode"):
        fast(input_ids=torch.tensor([[5, 6]]))


def test_written_thresholds_outlive_a_move(model):
    fast = compile(model, Confidence(2.0))
    fast.policy_table[1, 1] = 0.0
    fast.to("cpu")
    assert fast(**inputs_for(model, 1)).exit_layer.item() == 2


@pytest.mark.parametrize("make", [copy.deepcopy, lambda fast: pickle.loads(pickle.dumps(fast))])
def test_written_thresholds_outlive_a_copy(model, make):
    fast = compile(model, PABEE(1))
    fast.policy_table[:, 1] = 0.25
    assert torch.equal(make(fast).policy_table, fast.policy_table)


def test_a_classifier_changed_in_place_counts_beside_a_learned_score():
    """There the plan holds copies of the heads; the live table stays as it was written."""
    model = tiny_model(scorer_row=True)
    inputs, fast = inputs_for(model, 4), compile(model, BERxiT(1.5))
    fast.policy_table[0, 0] = 0.5
    with torch.no_grad():
        model.heads.classifiers[-1].weight.mul_(-1)
    torch.testing.assert_close(fast(**inputs).logits, model(**inputs).logits)
    assert fast.policy_table[0, 0] == 0.5


def test_a_cascade_changed_in_place_counts_in_low_precision():
    model = tiny_model(cascade=True)
    low = copy.deepcopy(model).to(torch.bfloat16)
    fast, inputs = compile(low, Budgeted(3)), inputs_for(model, 4)
    for cascade in low.heads.cascades:
        torch.nn.init.zeros_(cascade.weight)
    for cascade in model.heads.cascades:
        torch.nn.init.zeros_(cascade.weight)
    wanted = model(**inputs).exit_logits[2]
    torch.testing.assert_close(fast(**inputs).logits, wanted, atol=0.2, rtol=0.1)


@pytest.mark.parametrize("name", ["bert", "deberta-v2"])
def test_a_list_of_layers_replaced_as_a_whole_is_seen(name):
    base = copy.deepcopy(model_of(name, "eager", torch.float32))
    model = attach_exits(base, num_labels=3).eval()
    fast, inputs = compile(model, Never()), tokens()
    before = fast(**inputs).logits
    layers = model.backbone.encoder.layer
    model.backbone.encoder.layer = torch.nn.ModuleList(reversed(layers))
    after = fast(**inputs).logits
    assert not torch.allclose(after, before)
    torch.testing.assert_close(after, model(**inputs).logits)
    model.backbone.encoder.layer = layers[:1]
    with pytest.raises(ValueError, match=r"has 1 layers, and had \d when it got exits"):
        fast(**inputs)
