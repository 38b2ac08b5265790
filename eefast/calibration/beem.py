"""Calibration of BEEM: weights of section 3.3, thresholds of section 3.4."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import torch

from eefast.calibration.goal import Goal
from eefast.ops import reached
from eefast.policies import BEEM
from eefast.policies.beem import SEARCH_SPACE
from eefast.policies.values import Values, numbers
from eefast.traces import ExitTrace

ERROR_RATE_SPACE = tuple(i / 2 for i in range(1, 11))
"""The paper's space for Eq. 3, {0.5, 1, ..., 5}; L is always added to it."""


def calibrate_beem(
    trace: ExitTrace,
    goal: Goal,
    *,
    weights: Literal["accuracy", "cost"] = "accuracy",
    thresholds: Literal["error-rate", "search"] | None = None,
    space: Values | None = None,
    cost: float | None = None,
    count: Literal["running", "independent"] = "running",
) -> BEEM:
    """BEEM's weights and thresholds from a trace of validation data.

    Args:
        trace: every exit's logits on validation data.
        goal: a limit, or another metric than accuracy, goes with "search".
        weights: "accuracy" (BEEM-A: each exit's accuracy on the trace) or "cost" (BEEM-C:
            lambda * i).
        thresholds: "error-rate" (Eq. 3: for each exit the smallest threshold at which the samples
            that leave there err no more often than the last exit does over all) or "search" (one
            threshold for all exits: the best by `goal`). None: "search" if the goal asks for
            anything, otherwise "error-rate".
        space: thresholds to choose from. Unless given the paper's; with a limit 20 L ones, evenly
            spaced up to the highest score there can be.
        cost: lambda of "cost"; 1 / L unless given.
        count: whom the error rate of an exit counts, see `error_rate_thresholds`.

    Raises:
        ValueError: an argument outside its choices, arguments that contradict each other, an
            empty space, or as `Goal.best`.
    """
    if weights not in ("accuracy", "cost"):
        raise ValueError(f"weights must be 'accuracy' or 'cost', got {weights!r}")
    if weights == "accuracy":
        if cost is not None:
            raise ValueError(f"cost goes with weights='cost', got {cost} and weights='accuracy'")
        start = BEEM.accuracy(trace.accuracies().tolist(), math.inf)
    else:
        start = BEEM.cost(trace.num_exits, math.inf, cost)

    if thresholds is None:
        thresholds = "error-rate" if goal == Goal() else "search"
    if thresholds not in ("error-rate", "search"):
        raise ValueError(f"thresholds must be 'error-rate' or 'search', got {thresholds!r}")
    if count not in ("running", "independent"):
        raise ValueError(f"count must be 'running' or 'independent', got {count!r}")
    if count != "running" and thresholds == "search":
        raise ValueError(f"count={count!r} goes with thresholds='error-rate' (Eq. 3), not 'search'")
    if space is not None:
        space = numbers("calibrate", "space", space, -math.inf)
        if not isinstance(space, Sequence):
            raise ValueError(f"space must be a list of thresholds, got {space}")
        if not space:
            raise ValueError("the space to search must hold at least one setting, got none")

    if thresholds == "error-rate":
        if goal != Goal():
            raise ValueError(
                f"{goal} goes with thresholds='search', got thresholds='error-rate' (Eq. 3)"
            )
        space = space or ERROR_RATE_SPACE
        found = error_rate_thresholds(start, trace, space, count)
        return dataclasses.replace(start, thresholds=found)
    if space is None:
        space = _fine_space(start, trace.num_exits) if goal.limited else SEARCH_SPACE
    settings = [dataclasses.replace(start, thresholds=alpha) for alpha in space]
    return goal.best(settings, trace)


def _fine_space(policy: BEEM, exits: int) -> tuple[float, ...]:
    """Thresholds up to the sum of all weights, which only the last exit can reach."""
    steps, highest = 20 * exits, policy.table(exits)[:, 0].sum().item()
    return tuple(highest * i / steps for i in range(1, steps + 1))


def error_rate_thresholds(
    policy: BEEM,
    trace: ExitTrace,
    space: Sequence[float],
    count: Literal["running", "independent"] = "running",
) -> tuple[float, ...]:
    """Eq. 3: alpha_t = min { alpha in space and {L} : error rate of exit t at alpha <= p }.

    The error rate is that of the samples that leave at t, and p is the last exit's over the whole
    trace. Eq. 3 has <= p where the text of section 3.4 has < p; this is the formula's, with which
    an exit as good as the last may let samples go, and there is a threshold even for p = 0. Exits
    are settled from the first to the last. Where no sample would leave, none errs. An exit for
    which no candidate will do never lets a sample leave.

    Args:
        policy: its weights are used, its thresholds are not.
        trace: validation data.
        space: candidates; L is added.
        count: "running": exit t counts the samples that no exit before it has let go, those that
            "exit at t". "independent": all samples whose score reaches the threshold, as the
            paper's formula of the coverage has it; samples that would have left before then make
            the exit look better, or worse, than it is for those that it will meet.
    """
    exits = trace.num_exits
    table = policy.table(exits)
    # Rates are compared as products of counts, so that equality does not depend on how 1/3 is
    # rounded.
    total, last_errors = len(trace.labels), (trace.logits[-1].argmax(-1) != trace.labels).sum()
    recurrence = policy.recurrence
    values = recurrence.start(total, trace.num_classes, exits, trace.logits.device)
    running = torch.ones_like(trace.labels, dtype=torch.bool)
    chosen = []
    for i in range(1, exits):
        values = recurrence.step(values, trace.logits[i - 1], table, i).values
        wrong = values.prediction != trace.labels
        for alpha in (*sorted({*space, float(exits)}), math.inf):
            exits_here = running & reached(values.score, alpha, strict=policy.strict)
            if (exits_here & wrong).sum() * total <= last_errors * exits_here.sum():
                break
        chosen.append(float(alpha))
        if count == "running":
            running &= ~exits_here
    return (*chosen, 0.0)  # the last exit always answers
