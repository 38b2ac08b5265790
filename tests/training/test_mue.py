"""MuE's objective: the mean over the layers of the task loss, through one head."""

import torch
import torch.nn.functional as F

from tests.models import inputs_for, tiny_model


def test_the_mean_of_the_layers_losses_through_one_head():
    model = tiny_model(objective="mue", head="pooler")
    assert len(model.heads.classifiers) == len(model.heads.poolers) == 1
    inputs, labels = inputs_for(model, 6), torch.arange(6) % 3
    output = model(**inputs, labels=labels)
    wanted = torch.stack([F.cross_entropy(logits, labels) for logits in output.exit_logits])
    torch.testing.assert_close(output.loss, wanted.mean())
    output.loss.backward()
    (classifier,) = model.heads.classifiers
    assert classifier.weight.grad.abs().sum() > 0


def test_with_one_output_the_loss_is_the_squared_error():
    model = tiny_model(classes=1, objective="mue")
    inputs, labels = inputs_for(model, 6), torch.linspace(-1, 1, 6)
    output = model(**inputs, labels=labels)
    wanted = torch.stack([F.mse_loss(z[:, 0], labels) for z in output.exit_logits])
    torch.testing.assert_close(output.loss, wanted.mean())


def test_heads_are_shared_for_it_unless_told_otherwise():
    assert tiny_model(objective="mue").config.share_head
    assert not tiny_model(objective="mue", share_head=False).config.share_head
    assert not tiny_model().config.share_head
