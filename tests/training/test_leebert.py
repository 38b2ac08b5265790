"""LeeBERT's objective: the model's loss by hand, and what the weights learn."""

import pytest
import torch
import torch.nn.functional as F

from eefast import MultiExitModel, MultiExitOutput
from eefast.training import Exits, objective
from eefast.training.leebert import RATE
from tests.models import inputs_for, losses_of_training, tiny_model

LABELS = torch.tensor([0, 1])


def made(count, classes=2, **options):
    return objective("leebert", Exits(tuple(range(1, count + 1)), (1,) * count, classes), **options)


def probabilities(rows):
    """Logits of these probabilities."""
    return torch.tensor(rows).log().requires_grad_()


def three_exits():
    return tuple(
        probabilities(rows)
        for rows in (
            [[0.5, 0.5], [0.5, 0.5]],
            [[0.9, 0.1], [0.2, 0.8]],  # a good teacher
            [[0.3, 0.7], [0.6, 0.4]],  # a bad one
        )
    )


def test_the_loss_is_task_losses_and_weighted_divergences():
    exits = three_exits()
    loss = made(3, distillation=0.5)
    with torch.no_grad():
        loss.raw[0, 1] = 1 / RATE
    weights = loss.weights
    e = torch.e
    torch.testing.assert_close(weights[0], torch.tensor([0.0, e / (1 + e), 1 / (1 + e)]))
    torch.testing.assert_close(weights[1:], torch.tensor([[0.5, 0.0, 0.5], [0.5, 0.5, 0.0]]))
    wanted = sum(F.cross_entropy(z, LABELS) for z in exits)
    for s in range(3):
        for t in range(3):
            p, q = exits[t].softmax(-1), exits[s].softmax(-1)
            wanted = wanted + 0.5 * weights[s, t] * (p * (p / q).log()).sum(-1).mean()
    got = loss(MultiExitOutput(exit_logits=exits), LABELS)
    assert got.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_a_teacher_is_a_constant():
    exits = three_exits()
    loss = made(3)(MultiExitOutput(exit_logits=exits), LABELS)
    loss.backward()
    for s, z in enumerate(exits):
        p = [x.detach().softmax(-1) for x in exits]
        pulls = p[s] - F.one_hot(LABELS, 2)  # of the labels
        pulls = pulls + sum(0.5 * (p[s] - p[t]) for t in range(3) if t != s)  # of its teachers
        torch.testing.assert_close(z.grad, pulls / 2)


def test_the_weights_follow_the_task_loss_after_the_students_step():
    """Their gradient is that of CE(z_s - step * distillation's gradient), by the weights."""
    exits = three_exits()
    loss = made(3)
    loss(MultiExitOutput(exit_logits=exits), LABELS).backward()
    got = loss.raw.grad.clone()
    raw, step = loss.raw.detach().clone().requires_grad_(), 1e-3
    itself = torch.eye(3, dtype=torch.bool)
    weights = (RATE * raw).masked_fill(itself, -1e9).softmax(1)
    after = 0.0
    for s, z in enumerate(exits):
        z, p = z.detach(), [x.detach().softmax(-1) for x in exits]
        pull = sum(weights[s, t] * (p[s] - p[t]) for t in range(3) if t != s)
        after = after + F.cross_entropy(z - step * pull, LABELS)
    after.backward()
    torch.testing.assert_close(got, raw.grad / step, atol=0.02, rtol=0.02)


def test_every_exit_comes_to_learn_from_the_good_teacher():
    exits, loss = three_exits(), made(3)
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-3)
    for _ in range(50):
        optimizer.zero_grad()
        loss(MultiExitOutput(exit_logits=exits), LABELS).backward()
        optimizer.step()
    assert loss.weights[0, 1] > 0.9
    assert loss.weights[2, 1] > 0.9


def test_the_weights_are_the_models_and_are_saved(tmp_path):
    model = tiny_model(objective="leebert").train()
    batch = {**inputs_for(model, 6), "labels": torch.arange(6) % 3}
    losses = losses_of_training(model, batch, 10)
    assert losses[-1] < losses[0]
    assert (model.objective.weights - made(4, 3).weights).abs().max() > 0.01
    model.eval().save_pretrained(tmp_path)
    loaded = MultiExitModel.from_pretrained(tmp_path)
    assert torch.equal(loaded.objective.weights, model.objective.weights)


def test_one_exit_one_output_and_bad_options():
    z = torch.tensor([[2.0, 0.0], [0.0, 1.0]], requires_grad=True)
    got = made(1)(MultiExitOutput(exit_logits=(z,)), LABELS)
    assert got.item() == pytest.approx(F.cross_entropy(z, LABELS).item())
    numbers = (torch.tensor([[1.0], [2.0]]),) * 2
    got = made(2, classes=1)(MultiExitOutput(exit_logits=numbers), torch.tensor([0.0, 0.0]))
    assert got.item() == pytest.approx(2 * (1 + 4) / 2)
    with pytest.raises(ValueError, match="distillation must be in"):
        made(2, distillation=-1)
