"""Temperatures of lowest cross-entropy."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from eefast import ExitTrace, calibrate
from eefast.calibration.righttool import temperatures
from eefast.policies import RightTool
from tests.traces.made import learned_trace


def test_no_other_temperature_has_a_lower_cross_entropy():
    trace = learned_trace()
    for z, best in zip(trace.logits.double(), temperatures(trace).tolist(), strict=True):
        lowest = cross_entropy(z / best, trace.labels)
        for factor in (0.5, 0.9, 0.99, 1.01, 1.1, 2.0):
            assert cross_entropy(z / (best * factor), trace.labels) > lowest


def test_a_known_temperature_is_found():
    """Labels drawn from softmax(z / 3): 3 is the best but for chance."""
    g = torch.Generator().manual_seed(0)
    z = 6 * torch.randn(10_000, 3, generator=g)
    labels = torch.multinomial((z / 3).softmax(-1), 1, generator=g)[:, 0]
    found = temperatures(ExitTrace(torch.stack([z, z / 3, 10 * z]), labels))
    assert found.tolist() == pytest.approx([3, 1, 30], rel=0.08)
    assert found[2] / found[0] == pytest.approx(10)


def test_where_there_is_no_minimum_the_bounds_are_taken():
    sure = torch.tensor([[1.0, 0.0]] * 3)
    right, wrong = torch.zeros(3).long(), torch.ones(3).long()
    assert temperatures(ExitTrace(sure[None], right)).tolist() == pytest.approx([0.01])
    assert temperatures(ExitTrace(sure[None], wrong)).tolist() == pytest.approx([100])


def test_the_threshold_is_searched_at_these_temperatures():
    trace = learned_trace()
    chosen = calibrate("righttool", trace, target_speedup=1.3)
    assert chosen.temperatures == pytest.approx(temperatures(trace).tolist())
    assert chosen.expected.layer_speedup >= 1.3
    assert calibrate("righttool", trace, space=[RightTool(0.3, 2.0)]).temperatures == 2
