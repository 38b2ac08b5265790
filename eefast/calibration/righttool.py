"""Calibration of The Right Tool for the Job: a temperature for each exit, then a threshold."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from eefast.calibration.goal import Goal
from eefast.calibration.search import search
from eefast.policies import RightTool
from eefast.policies.values import probabilities
from eefast.traces import ExitTrace

LOWEST, HIGHEST = 0.01, 100.0
"""Temperatures are sought between these: where an exit is never wrong, or no better than chance,
the cross-entropy has its minimum at 0 or infinity."""


def calibrate_righttool(
    trace: ExitTrace, goal: Goal, *, space: Iterable[RightTool] | None = None
) -> RightTool:
    """The temperatures of lowest cross-entropy on the trace (section 3.3), and the best threshold.

    Args:
        trace: validation data.
        goal: what the best threshold is.
        space: settings to choose from instead, temperatures included.

    Raises:
        ValueError: as `Goal.best`.
        TypeError: the space holds something else than such policies.
    """
    if space is None:
        fitted = tuple(temperatures(trace).tolist())
        space = [RightTool(threshold, fitted) for threshold in probabilities()]
    return search(RightTool, trace, goal, space=space)


def temperatures(trace: ExitTrace) -> Tensor:
    """The temperature of lowest cross-entropy of each exit, [L] float64.

    With b = 1 / T the cross-entropy, mean(ln sum_c e^(b z_c) - b z_y), is convex in b. Its
    derivative, mean(sum_c p_c z_c - z_y), is brought to 0 by bisection of ln b.
    """
    z = trace.logits.double()
    target = z.gather(2, trace.labels.expand(len(z), -1)[..., None])[..., 0]
    ends = torch.tensor([1 / HIGHEST, 1 / LOWEST], dtype=torch.float64, device=z.device).log()
    low, high = ends[:, None].expand(2, len(z))
    for _ in range(60):
        middle = (low + high) / 2
        p = (middle.exp()[:, None, None] * z).softmax(-1)
        above = ((p * z).sum(-1) - target).mean(-1) > 0
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    found: Tensor = (-(low + high) / 2).exp()
    return found
