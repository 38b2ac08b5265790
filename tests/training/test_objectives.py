"""Objectives against their papers' formulas, and where gradients flow."""

import math

import pytest
import torch

from eefast.training import objective


def cross_entropy(z, label):
    p = z.detach().double().softmax(-1)
    return -math.log(p[label])


def divergence(z, last):
    p, q = z.double().softmax(-1), last.double().softmax(-1)
    return (p * (p / q).log()).sum().item()


@pytest.fixture
def exits():
    return [torch.randn(4, 3, requires_grad=True) for _ in range(3)]


LABELS = torch.tensor([0, 2, 1, 1])


def test_weighted_is_the_depth_weighted_cross_entropy(exits):
    wanted = sum(
        i * sum(cross_entropy(z[n], LABELS[n]) for n in range(4)) / 4
        for i, z in enumerate(exits, 1)
    ) / (1 + 2 + 3)
    assert objective("weighted")(exits, LABELS).item() == pytest.approx(wanted, rel=1e-5)


def test_beem_is_equation_1(exits):
    wanted = sum(
        i
        * sum(cross_entropy(z[n], LABELS[n]) + divergence(z[n], exits[-1][n]) for n in range(4))
        / 4
        for i, z in enumerate(exits, 1)
    ) / (1 + 2 + 3)
    assert objective("beem")(exits, LABELS).item() == pytest.approx(wanted, rel=1e-5)


def test_the_teacher_learns_from_labels_only(exits):
    objective("beem")(exits, LABELS).backward()
    from_beem = exits[-1].grad.clone()
    exits[-1].grad = None
    objective("weighted")(exits, LABELS).backward()
    torch.testing.assert_close(from_beem, exits[-1].grad)


@pytest.mark.parametrize("name", ["beem", "weighted"])
def test_one_output_is_regression(name):
    exits, labels = [torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [4.0]])], [1.0, 3.0]
    wanted = (1 * (0 + 1) / 2 + 2 * (1 + 1) / 2) / 3
    assert objective(name)(exits, torch.tensor(labels)).item() == pytest.approx(wanted)


def test_low_precision_logits_are_judged_in_float32(exits):
    half = [z.detach().bfloat16() for z in exits]
    loss = objective("beem")(half, LABELS)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, objective("beem")([z.float() for z in half], LABELS))


def test_unknown_objective():
    with pytest.raises(
        ValueError, match=r"unknown objective 'luck'; there are \['beem', 'weighted'"
    ):
        objective("luck")
