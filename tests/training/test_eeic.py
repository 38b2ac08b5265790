"""EEIC's objective against Eq. 14 and 24 written out sample by sample."""

import math

import pytest
import torch

from eefast import MultiExitOutput
from eefast.training import objective

LABELS = [0, 2, 1, 1]


def made(exits=4, classes=3):
    return tuple(torch.randn(4, classes, requires_grad=True) for _ in range(exits))


def loss_of(exits, **options):
    return objective("eeic", **options)(MultiExitOutput(exit_logits=exits), torch.tensor(LABELS))


def plain(exits, alphas, betas):
    """Eq. 24 for each sample, averaged."""
    total = 0.0
    for n, label in enumerate(LABELS):
        x = [z[n].detach().double().softmax(-1).tolist() for z in exits]
        for i in range(len(exits)):
            total -= alphas[i] * math.log(x[i][label])
            if i:
                against = [
                    -sum(p * math.log(q) for p, q in zip(x[j], x[i], strict=True)) for j in range(i)
                ]
                total -= betas[i] * min(against)
    return total / len(LABELS)


@pytest.mark.parametrize(
    ("options", "alphas", "betas"),
    [
        ({}, [1] * 4, [0.2] * 4),
        (dict(diversity=0.5), [1] * 4, [0.5] * 4),
        (dict(diversity=0.0), [1] * 4, [0] * 4),
        (dict(last_differs=False), [1] * 4, [0, 0.2, 0.2, 0]),
        (dict(weights="depth"), [0.1, 0.2, 0.3, 0.4], [0.02, 0.04, 0.06, 0.08]),
    ],
)
def test_equation_24(options, alphas, betas):
    exits = made()
    wanted = plain(exits, alphas, betas)
    assert loss_of(exits, **options).item() == pytest.approx(wanted, rel=1e-5)


def test_two_exits_by_hand():
    """Eq. 16: L_2 = lambda [p_c ln q_c + (1 - p_c) ln(1 - q_c)] - ln q_c."""
    p, q, weight = 0.8, 0.6, 0.3
    exits = tuple(torch.tensor([[math.log(c), math.log(1 - c)]]) for c in (p, q))
    loss = objective("eeic", diversity=weight)(
        MultiExitOutput(exit_logits=exits), torch.zeros(1, dtype=torch.int64)
    )
    second = weight * (p * math.log(q) + (1 - p) * math.log(1 - q)) - math.log(q)
    assert loss.item() == pytest.approx(-math.log(p) + second, rel=1e-5)


def test_diversity_pulls_both_distributions_apart():
    exits = made(exits=2)
    loss_of(exits).backward()
    pulled = [z.grad.clone() for z in exits]
    for z in exits:
        z.grad = None
    loss_of(exits, diversity=0.0).backward()
    for z, grad in zip(exits, pulled, strict=True):
        assert not torch.allclose(z.grad, grad)


def test_one_exit_and_one_output_have_nothing_to_differ_from():
    (only,) = made(exits=1)
    plain_loss = torch.nn.functional.cross_entropy(only, torch.tensor(LABELS))
    torch.testing.assert_close(loss_of((only,)), plain_loss)
    exits = (torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [4.0]]))
    output = MultiExitOutput(exit_logits=exits)
    assert objective("eeic")(output, torch.tensor([1.0, 3.0])).item() == pytest.approx(0.5 + 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(diversity=1.0), r"diversity must be in \[0, 1\), got 1.0"),
        (dict(diversity=math.nan), "diversity must be in"),
        (dict(weights="wide"), "'equal' or 'depth', got 'wide'"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        loss_of(made(), **options)
