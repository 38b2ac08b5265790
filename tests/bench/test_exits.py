"""The exit step that all benchmarks time: which work it is, and that no call is idle."""

import pytest
import torch

from bench.exits import exit_step, make_exit


@pytest.mark.parametrize("head", ["linear", "pooler"])
@pytest.mark.parametrize("impl", ["reference", "cpp"])
def test_every_call_does_the_same_work(impl, head):
    hidden, weights = make_exit(head, 16, 3, 2, "cpu", torch.float32)
    assert (weights.pooler_weight is not None) == (head == "pooler")
    assert weights.weight.shape == (3, 16)
    call, state = exit_step(impl, hidden, weights)
    scores = []
    for _ in range(3):
        call()
        assert state.running[0]
        assert state.exit_layer.tolist() == [0, 0]
        scores.append(state.score.clone())
    assert (scores[0] > 0).all()
    assert (scores[2] > scores[1]).all()  # not idle: the same prediction again adds to the score
