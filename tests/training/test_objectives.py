"""Objectives: the registry, the formulas of their papers, and where gradients flow."""

import math

import pytest
import torch

from eefast import MultiExitOutput
from eefast.training import Exits, objective, register_objective
from tests.models import inputs_for, tiny_model

LABELS = torch.tensor([0, 2, 1, 1])


def cross_entropy(z, label):
    p = z.detach().double().softmax(-1)
    return -math.log(p[label])


def divergence(z, last):
    p, q = z.double().softmax(-1), last.double().softmax(-1)
    return (p * (p / q).log()).sum().item()


@pytest.fixture
def exits():
    return tuple(torch.randn(4, 3, requires_grad=True) for _ in range(3))


def loss_of(name, exits, labels=LABELS, scores=None, **options):
    return objective(name, **options)(
        MultiExitOutput(exit_logits=exits, exit_scores=scores), labels
    )


@pytest.mark.parametrize("name", ["weighted", "pabee", "pcee", "pcee-v1"])
def test_weighted_is_the_depth_weighted_cross_entropy(exits, name):
    wanted = sum(
        i * sum(cross_entropy(z[n], LABELS[n]) for n in range(4)) / 4
        for i, z in enumerate(exits, 1)
    ) / (1 + 2 + 3)
    assert loss_of(name, exits).item() == pytest.approx(wanted, rel=1e-5)


def test_beem_is_equation_1(exits):
    wanted = sum(
        i
        * sum(cross_entropy(z[n], LABELS[n]) + divergence(z[n], exits[-1][n]) for n in range(4))
        / 4
        for i, z in enumerate(exits, 1)
    ) / (1 + 2 + 3)
    assert loss_of("beem", exits).item() == pytest.approx(wanted, rel=1e-5)


def test_the_teacher_learns_from_labels_only(exits):
    loss_of("beem", exits).backward()
    from_beem = exits[-1].grad.clone()
    exits[-1].grad = None
    loss_of("weighted", exits).backward()
    torch.testing.assert_close(from_beem, exits[-1].grad)


@pytest.mark.parametrize("name", ["beem", "weighted", "pabee", "pcee", "pcee-v1"])
def test_one_output_is_regression(name):
    exits, labels = (torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [4.0]])), [1.0, 3.0]
    wanted = (1 * (0 + 1) / 2 + 2 * (1 + 1) / 2) / 3
    assert loss_of(name, exits, torch.tensor(labels)).item() == pytest.approx(wanted)


@pytest.mark.parametrize("name", ["beem", "weighted", "eeic", "berxit"])
def test_losses_are_float32_whatever_comes_in(exits, name):
    scores = tuple(torch.rand(4, dtype=torch.float32) for _ in exits)
    half = tuple(z.detach().bfloat16() for z in exits)
    loss = loss_of(name, half, scores=scores)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, loss_of(name, tuple(z.float() for z in half), scores=scores))
    torch.set_default_dtype(torch.float64)
    try:
        again = loss_of(name, half, scores=scores)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(loss, again)


def test_unknown_objectives_and_options():
    with pytest.raises(
        ValueError,
        match=r"unknown objective 'luck'; there are \['beem', 'berxit', 'branchynet', .*",
    ):
        objective("luck")
    with pytest.raises(
        TypeError, match=r"'eeic' has no options \['luck'\]; there are \['diversity'"
    ):
        objective("eeic", luck=1)
    with pytest.raises(TypeError, match=r"'berxit' has no options \['luck'\]; there are \[\]"):
        objective("berxit", luck=1)


def test_an_objective_of_your_own_sees_the_whole_output():
    @register_objective("test-first-exit")
    def first_exit(output, labels, *, scale=1.0):
        assert output.logits is output.exit_logits[-1]
        return scale * output.exit_logits[0].square().mean() + 0 * labels.sum()

    model = tiny_model(objective="test-first-exit", objective_options={"scale": 2.0})
    output = model(**inputs_for(model, 2), labels=torch.tensor([0, 1]))
    torch.testing.assert_close(output.loss, 2 * output.exit_logits[0].square().mean())
    assert output.to_tuple()[0] is output.loss


def test_an_objective_may_need_to_know_the_model():
    with pytest.raises(TypeError, match=r"made for a model: objective\('elasticbert', Exits"):
        objective("elasticbert")
    with pytest.raises(TypeError, match=r"no options \['luck'\]; there are \['weights'\]"):
        objective("msdnet", Exits((1, 2), (1.0, 1.0), 3), luck=1)


def test_two_objectives_cannot_have_one_name():
    with pytest.raises(ValueError, match="an objective named 'beem' already: beem"):

        @register_objective("beem")
        def other(output, labels):
            return labels

    with pytest.raises(ValueError, match="an objective named 'eeic' already: eeic"):

        @register_objective("test-new", "eeic")
        def several(output, labels):
            return labels

    with pytest.raises(ValueError, match="unknown objective 'test-new'"):
        objective("test-new")


def test_options_are_saved_with_the_model(tmp_path):
    model = tiny_model(objective="eeic", objective_options={"diversity": 0.5})
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path).eval()
    batch = {**inputs_for(model, 3), "labels": torch.tensor([0, 1, 2])}
    assert torch.equal(loaded(**batch).loss, model(**batch).loss)
    assert not torch.equal(loaded(**batch).loss, tiny_model(objective="eeic")(**batch).loss)
