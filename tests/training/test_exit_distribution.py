"""The distribution of exits that gates draw, and losses of single samples, by hand."""

import pytest
import torch

from eefast.training.exit_distribution import exit_distribution, sample_losses


def test_what_is_left_goes_on_and_the_last_exit_takes_all():
    gates = torch.tensor([[0.5, 0.0], [0.2, 1.0]])  # of exits 1 and 2, two samples
    wanted = torch.tensor([[0.5, 0.0], [0.1, 1.0], [0.4, 0.0]])
    torch.testing.assert_close(exit_distribution(gates), wanted)
    assert torch.equal(exit_distribution(torch.zeros(0, 3)), torch.ones(1, 3))


def test_losses_of_samples_are_the_task_losses():
    logits, labels = torch.randn(3, 5, 4), torch.tensor([0, 1, 2, 3, 0])
    got = sample_losses(tuple(logits), labels)
    assert got[1, 2].item() == pytest.approx(-logits[1, 2].log_softmax(-1)[2].item())
    numbers = torch.randn(3, 5, 1)
    got = sample_losses(tuple(numbers), labels)
    assert got[2, 1].item() == pytest.approx((numbers[2, 1, 0].item() - 1) ** 2)
