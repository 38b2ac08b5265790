"""PALBERT's objective by hand, and what its scorer learns."""

import math

import pytest
import torch

from eefast import MultiExitOutput
from eefast.training import objective
from tests.models import inputs_for, losses_of_training, tiny_model

LABELS = torch.tensor([0, 1])
LOGITS = (torch.zeros(2, 2), torch.tensor([[2.0, 0.0], [1.0, 0.0]]), torch.tensor([[3.0, 0.0]] * 2))
SCORES = (torch.tensor([0.5, 0.2]), torch.tensor([0.4, 1.0]), torch.tensor([0.9, 0.1]))


def test_palbert_by_hand():
    def loss(row, y):
        return -math.log(math.exp(row[y]) / sum(map(math.exp, row)))

    leaving = [[0.5, 0.2, 0.3], [0.2, 0.8, 0.0]]  # the third score is not read
    prior = [0.25, 0.1875, 0.5625]
    total = 0.0
    for n, p in enumerate(leaving):
        total += sum(p[i] * loss(LOGITS[i][n].tolist(), n) for i in range(3)) / 2
        total += 0.7 * sum(p[i] * math.log(p[i] / prior[i]) for i in range(3) if p[i]) / 2
    output = MultiExitOutput(exit_logits=LOGITS, exit_scores=SCORES)
    got = objective("palbert", beta=0.7, prior=0.25)(output, LABELS)
    assert got.item() == pytest.approx(total, rel=1e-5)


def test_palberts_scorer_learns_to_leave_where_the_loss_is_low():
    model = tiny_model(objective="palbert", objective_options={"beta": 0.0}).train(False)
    batch = {**inputs_for(model, 8), "labels": torch.arange(8) % 3}
    losses = losses_of_training(model, batch, 30, model.heads.scorer.parameters(), lr=0.05)
    assert losses[-1] < losses[0]
    model = tiny_model(objective="palbert")
    model(**batch).loss.backward()
    assert model.backbone.encoder.layer[0].output.dense.weight.grad.abs().sum() > 0


def test_scores_that_are_sure_give_finite_gradients():
    scores = [torch.tensor([1.0, 0.0], requires_grad=True) for _ in range(3)]
    output = MultiExitOutput(exit_logits=LOGITS, exit_scores=tuple(scores))
    objective("palbert")(output, LABELS).backward()
    assert all(s.grad.isfinite().all() for s in scores[:2])


def test_palbert_needs_scores_and_options_in_range():
    with pytest.raises(ValueError, match=r"'palbert' trains learned scores.*scorer_row=True"):
        objective("palbert")(MultiExitOutput(exit_logits=LOGITS), LABELS)
    with pytest.raises(ValueError, match="beta must be in"):
        objective("palbert", beta=-1)
    with pytest.raises(ValueError, match="prior must be in"):
        objective("palbert", prior=1.0)
    assert tiny_model(objective="palbert").heads.scorer is not None
