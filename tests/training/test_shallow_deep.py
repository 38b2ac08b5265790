"""Shallow-Deep Networks: the ramp of the exits' weights, and its two ways to train."""

import pytest
import torch
import torch.nn.functional as F

from eefast import MultiExitOutput
from eefast.training import Exits, objective, stages
from tests.models import inputs_for, tiny_model

LABELS = torch.tensor([0, 2, 1, 1])


@pytest.mark.parametrize(
    ("progress", "weights"),
    [(0, [0.01, 0.01, 1]), (0.5, [0.105, 0.405, 1]), (None, [0.2, 0.8, 1])],
)
def test_coefficients_grow_to_each_exits_share_of_the_cost(progress, weights):
    logits = tuple(torch.randn(4, 3) for _ in range(3))
    loss = objective("shallow-deep", Exits((1, 3, 4), (1.0, 1.0, 2.0, 1.0), 3))
    loss.progress = progress
    each = [F.cross_entropy(z, LABELS) for z in logits]
    wanted = sum(w * one for w, one in zip(weights, each, strict=True))
    torch.testing.assert_close(loss(MultiExitOutput(exit_logits=logits), LABELS), wanted)


def test_exits_only_is_a_training_of_two_stages():
    model = tiny_model(objective="shallow-deep", objective_options={"mode": "exits-only"}).train()
    batch = {**inputs_for(model, 4), "labels": LABELS}
    backbone = model.backbone.embeddings.word_embeddings.weight
    seen = {}
    for stage in stages(model):
        with torch.random.fork_rng():
            seen[stage.name] = model.eval()(**batch).loss, backbone.requires_grad
        model.train()(**batch)  # needs no progress
    each = [F.cross_entropy(z, LABELS) for z in model.eval()(**batch).exit_logits]
    torch.testing.assert_close(seen["backbone"][0], each[-1])
    torch.testing.assert_close(seen["exits"][0], sum(each[:-1]))
    assert [trained for _, trained in seen.values()] == [True, False]


def test_another_mode_is_refused():
    with pytest.raises(ValueError, match="mode must be 'joint' or 'exits-only', got 'both'"):
        tiny_model(objective="shallow-deep", objective_options={"mode": "both"})
