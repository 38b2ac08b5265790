"""Calibration of MSDNet: thresholds from a geometric distribution of exits that meets a budget."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from eefast.calibration.costs import Costs
from eefast.calibration.goal import Goal
from eefast.calibration.quotas import cut, geometric, largest_log_ratio
from eefast.calibration.search import search
from eefast.ops.signals import signals
from eefast.policies import MSDNet
from eefast.traces import ExitTrace

RATIOS = tuple(i / 20 for i in range(1, 40))
"""Ratios of the series that the released code tries, 0.05 to 1.95."""


def calibrate_msdnet(
    trace: ExitTrace, goal: Goal, *, space: Iterable[MSDNet] | None = None
) -> MSDNet:
    """MSDNet's thresholds (section 5, "budgeted batch classification").

    A share of q_i = z r^i of the samples shall leave at exit i, where r is the paper's 1 - q and z
    makes the shares add up to 1. With a budget B, r solves sum_i q_i C_i = B for the costs C_i of
    leaving; a speed-up asked for is a budget in layers. (r above 1, for budgets beyond that of
    equal shares, is the released code's.) Otherwise the released code's 39 ratios are tried.

    Exit by exit, theta_i is the confidence of the least confident sample that must leave for the
    shares up to i to have left; here, halfway to the next (see `eefast.calibration.quotas.cut`).
    (The released code rounds the number of each exit down, so that the rounding of all goes to the
    last exit, and the budget may be missed.)

    Args:
        trace: validation data.
        goal: a limit, a metric.
        space: settings to choose from instead.

    Raises:
        ValueError: a budget below the cost of leaving at the first exit, or as `Goal.best`.
        TypeError: the space holds something else than such policies.
    """
    if space is None:
        alike = torch.ones(trace.num_exits, device="cpu")
        budget, costs = goal.budget, goal.costs_of(trace)
        if goal.target_speedup is not None:
            budget = trace.exit_layers[-1] / goal.target_speedup
            costs = Costs((1,) * trace.exit_layers[-1])
        if budget is None:
            ratios = [math.log(ratio) for ratio in RATIOS]
        else:
            most, leaving = budget, costs.of_leaving(MSDNet(1.0), trace.exit_layers)
            ratios = [largest_log_ratio(lambda r: bool(geometric(alike, r) @ leaving <= most))]
        space = [MSDNet(thresholds(trace, geometric(alike, ratio))) for ratio in ratios]
    return search(MSDNet, trace, goal, space=space)


def thresholds(trace: ExitTrace, leaving: Tensor) -> tuple[float, ...]:
    """One threshold per exit, at which at least the shares `leaving` of the trace have left."""
    samples = len(trace.labels)
    running = torch.ones(samples, dtype=torch.bool, device=trace.logits.device)
    chosen = []
    for logits, share in zip(trace.logits[:-1], leaving.cumsum(0).tolist(), strict=False):
        confidence = signals(logits).confidence
        gone = samples - int(running.sum())
        wanted = math.ceil(samples * share - 1e-9) - gone  # 0.1 + 0.2 of 10 are 3
        left = confidence[running]
        chosen.append(cut(left, min(max(wanted, 0), len(left))))
        running &= confidence < chosen[-1]
    return (*chosen, 0.0)  # the last exit always answers
