"""FastBERT's self-distillation by hand; what DeeBERT's stages train is in test_stages."""

import math

import pytest
import torch

from eefast import MultiExitOutput
from eefast.training import FastBERT
from tests.models import tiny_model


def divergence(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def test_students_learn_from_the_teacher_and_from_no_label():
    student, teacher = (
        torch.tensor([[0.0, 1.0], [2.0, 0.0]]),
        torch.tensor([[1.0, 1.0], [0.0, 3.0]]),
    )
    student.requires_grad_()
    teacher.requires_grad_()
    loss = FastBERT.stages[1].loss
    output = MultiExitOutput(exit_logits=(student, 2 * student, teacher))
    got = loss(output, torch.tensor([0, 1]))
    wanted = 0.0
    for logits in (student.detach(), 2 * student.detach()):
        p, q = logits.softmax(-1).tolist(), teacher.detach().softmax(-1).tolist()
        wanted += sum(divergence(*pair) for pair in zip(p, q, strict=True)) / 2
    assert got.item() == pytest.approx(wanted, rel=1e-5)
    assert torch.equal(got, loss(output, torch.tensor([1, 0])))
    got.backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


def test_it_needs_classes():
    with pytest.raises(ValueError, match="'fastbert' needs classes, got one output"):
        tiny_model(classes=1, objective="fastbert")
    assert tiny_model(classes=1, objective="deebert").num_classes == 1


@pytest.mark.parametrize(
    ("name", "options"),
    [("deebert", {}), ("fastbert", {}), ("shallow-deep", {"mode": "exits-only"})],
)
def test_they_need_exits_before_the_last(name, options):
    with pytest.raises(ValueError, match=f"'{name}' trains exits before the last, and the model"):
        tiny_model(exits=[4], objective=name, objective_options=options)
