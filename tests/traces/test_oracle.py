"""The oracle: the first exit that is right."""

import pytest
import torch

from eefast import ExitTrace, oracle
from tests.traces.made import learned_trace


def test_by_hand():
    predictions = torch.tensor([[1, 0, 0, 2], [0, 1, 0, 2], [1, 1, 0, 2]])
    logits = torch.nn.functional.one_hot(predictions, 3).float()
    outcome = oracle(ExitTrace(logits, torch.tensor([1, 1, 1, 2]), exit_layers=(2, 4, 8)))
    assert outcome.exit.tolist() == [1, 2, 3, 1]
    assert outcome.exit_layer.tolist() == [2, 4, 8, 2]
    assert outcome.prediction.tolist() == [1, 1, 0, 2]
    assert outcome.score.tolist() == [1, 1, 0, 1]
    assert outcome.accuracy == 0.75
    assert outcome.layer_speedup == pytest.approx(4 * 8 / (2 + 4 + 8 + 2))


def test_no_exit_is_better_and_regression_has_none():
    trace = learned_trace()
    assert oracle(trace).accuracy > trace.accuracies().max()
    assert oracle(learned_trace(samples=0)).exit.tolist() == []
    with pytest.raises(ValueError, match="got a trace of one output"):
        oracle(ExitTrace(torch.zeros(2, 3, 1), torch.zeros(3).long()))
