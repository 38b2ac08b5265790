"""Joint objectives: weights by hand, and which gradients reach which layer."""

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModel

from eefast import MultiExitModel, MultiExitOutput, attach_exits
from eefast.training import Exits, objective
from tests.models import inputs_for, tiny_model

LABELS = torch.tensor([0, 2, 1, 1])
THREE = Exits((1, 2, 3), (1.0, 1.0, 1.0), 3)


@pytest.mark.parametrize(
    ("name", "options", "weights"),
    [
        ("branchynet", {}, [1, 1, 1]),
        ("branchynet", {"weights": [1.0, 0.3, 0]}, [1.0, 0.3, 0]),
        ("msdnet", {}, [1, 1, 1]),
        ("righttool", {}, [1, 1, 1]),
        ("elasticbert", {}, [1, 1, 1]),
        ("fixed", {}, [0, 0, 1]),
    ],
)
def test_the_sum_of_the_exits_losses(name, options, weights):
    for classes, labels, loss in (
        (3, LABELS, F.cross_entropy),
        (1, LABELS.float(), lambda z, y: F.mse_loss(z[:, 0], y)),
    ):
        exits = tuple(torch.randn(4, classes) for _ in range(3))
        wanted = sum(w * loss(z, labels) for w, z in zip(weights, exits, strict=True))
        got = objective(name, THREE, **options)(MultiExitOutput(exit_logits=exits), labels)
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("weights", [[1, 1], [1, 1, -1], [0, 0, 0], [1, 1, float("nan")]])
def test_other_weights_are_refused(weights):
    with pytest.raises(ValueError, match="weights must be 3 numbers, one for each exit, 0 or more"):
        objective("branchynet", THREE, weights=weights)


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("exits", [[1, 2, 3, 4], [2, 4]])
def test_gradient_equilibrium(exits):
    """A layer gets the mean of the gradients of the exits after it, a head its own exit's."""
    batch, plain = {"labels": LABELS}, tiny_model(exits=exits, objective="msdnet")
    batch.update(inputs_for(plain, 4))
    alone = []  # the gradients of each exit's loss, on their own
    for exit in range(len(exits)):
        loss = F.cross_entropy(plain(**batch).exit_logits[exit], LABELS)
        alone.append(gradients(plain, loss))
    model = tiny_model(exits=exits, objective="elasticbert")
    balanced = gradients(model, model(**batch).loss)
    assert balanced.keys() == set().union(*alone)
    for name, gradient in balanced.items():
        if name.startswith("heads."):
            (wanted,) = [of_exit[name] for of_exit in alone if name in of_exit]
        else:
            layer = int(name.split("layer.")[1].split(".")[0]) + 1 if "layer." in name else 1
            after = [i for i, exit in enumerate(exits) if exit >= layer]
            wanted = sum(alone[i][name] for i in after) / len(after)
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-6, msg=name)


def test_equilibrium_changes_gradients_and_nothing_else():
    model, plain = tiny_model(objective="elasticbert"), tiny_model(objective="msdnet")
    batch = {**inputs_for(model, 4), "labels": LABELS}
    assert torch.equal(model(**batch).loss, plain(**batch).loss)
    ours, theirs = gradients(model, model(**batch).loss), gradients(plain, plain(**batch).loss)
    last = "backbone.encoder.layer.3.output.dense.weight"
    first = "backbone.encoder.layer.0.output.dense.weight"
    torch.testing.assert_close(ours[last], theirs[last])
    assert not torch.allclose(ours[first], theirs[first])


def test_a_model_of_reduced_depth(tmp_path):
    whole = tiny_model()
    whole.backbone.save_pretrained(tmp_path / "bert")
    backbone = AutoModel.from_pretrained(tmp_path / "bert", num_hidden_layers=3)
    model = attach_exits(backbone, exits=[3], objective="fixed", num_labels=3).eval()
    inputs = inputs_for(model, 4)
    ours = model.backbone(**inputs).last_hidden_state
    theirs = whole.backbone(**inputs, output_hidden_states=True).hidden_states[3]
    torch.testing.assert_close(ours, theirs)
    out = model(**inputs, labels=LABELS)
    assert len(out.exit_logits) == 1
    torch.testing.assert_close(out.loss, F.cross_entropy(out.logits, LABELS))
    model.save_pretrained(tmp_path / "model")
    loaded = MultiExitModel.from_pretrained(tmp_path / "model")
    assert loaded.layers.depth == 3
    assert torch.equal(loaded(**inputs).logits, out.logits)
