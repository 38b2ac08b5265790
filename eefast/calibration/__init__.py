"""Calibration: policies whose numbers are chosen on a trace of validation data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from eefast.calibration.beem import calibrate_beem
from eefast.calibration.beem_theorem import theorem_condition
from eefast.calibration.costs import Costs
from eefast.calibration.eenet import calibrate_eenet
from eefast.calibration.expectation import expectation
from eefast.calibration.goal import Goal
from eefast.calibration.jei_dnn import calibrate_jei_dnn
from eefast.calibration.msdnet import calibrate_msdnet
from eefast.calibration.righttool import calibrate_righttool
from eefast.calibration.search import search
from eefast.calibration.ztw import calibrate_ztw
from eefast.policies import Policy, policy_class
from eefast.traces import ExitTrace, simulate
from eefast.traces.metrics import check_metric

__all__ = ["Costs", "Goal", "calibrate", "theorem_condition"]

_RECIPES: dict[str, Callable[..., Policy]] = {
    "beem": calibrate_beem,
    "msdnet": calibrate_msdnet,
    "righttool": calibrate_righttool,
    "ztw": calibrate_ztw,
    "eenet": calibrate_eenet,
    "jei-dnn": calibrate_jei_dnn,
}
"""Papers that choose their numbers in another way than by trying settings: recipe(trace, goal)."""


def calibrate(
    policy: str | type[Policy],
    trace: ExitTrace,
    *,
    target_speedup: float | None = None,
    max_accuracy_drop: float | None = None,
    budget: float | None = None,
    costs: Costs | Sequence[float] | None = None,
    metric: str = "accuracy",
    **options: Any,
) -> Policy:
    """A policy whose weights and thresholds are chosen on validation data. Deterministic.

        calibrate("pabee", trace, target_speedup=2)         # the most accurate at 2x or faster
        calibrate("beem", trace, max_accuracy_drop=0.005)   # the fastest that loses half a point
        calibrate("msdnet", trace, budget=4.5)              # the most accurate for 4.5 layers
        calibrate("pcee", trace, budget=9, costs=Costs.load("costs.json"))    # ... for 9 ms

    With none of the three, "beem" is calibrated by its paper's Eq. 3, and any other policy for the
    highest accuracy, among equals for the highest speed-up. What is to be expected of the result
    stands in its `expected` (see `eefast.policies.Expected`).

    Args:
        policy: the name of a policy, or its class; a class of your own will do.
        trace: every exit's logits on validation data, never on test data, and what else the policy
            reads (see `eefast.record_trace`).
        target_speedup: the most accurate setting whose layer speed-up on the trace is at least
            this. (Layers count alike; what unequal ones cost is `Simulation.cost_speedup`.)
        max_accuracy_drop: the fastest setting whose accuracy on the trace is at most this far
            below the last exit's; 0.005 is half a point. If none is that good, the most accurate
            one is taken, and a warning is logged.
        budget: the most accurate setting whose mean cost per sample on the trace is at most this,
            in the unit of `costs`. Among equals the cheapest.
        costs: what leaving costs: `Costs` of layers and exit steps (`eefast profile` measures them
            in milliseconds), or one number per layer, FLOPs for instance. Goes with `budget`; None:
            the trace's, which are layers unless the model says otherwise.
        metric: what stands for accuracy above: "accuracy", "f1", "matthews", "pearson" or
            "spearman" (see `Simulation.metric`).
        **options: `space`, the settings to choose from, instead of `Policy.settings(trace)`; for
            "beem" thresholds, and further options (see `eefast.calibration.beem.calibrate_beem`).

    Raises:
        ValueError: an unknown policy, one without settings, a trace that is empty, holds NaN or
            lacks what the policy reads, options out of range, several limits at once, an unknown
            metric, or a limit that no setting keeps.
        TypeError: neither a name nor a policy class, no trace, or options that the policy's
            calibration does not have.
    """
    if isinstance(policy, str):
        policy = policy_class(policy)
    if not isinstance(policy, type) or not issubclass(policy, Policy):
        raise TypeError(f"policy must be the name or the class of a policy, got {policy!r}")
    if not isinstance(trace, ExitTrace):
        raise TypeError(f"trace must be an ExitTrace, got {type(trace).__name__}")
    if not len(trace.labels):
        raise ValueError("the trace holds no samples to calibrate on")
    for what in ("logits", "scores", "similarity"):
        numbers = getattr(trace, what)
        if numbers is not None and numbers.isnan().any():
            raise ValueError(f"the trace holds NaN {what}: the model's training has diverged")
    goal = Goal(target_speedup, max_accuracy_drop, budget, costs, metric)
    check_metric(metric, trace.num_classes)
    recipe = _RECIPES.get(policy.name)
    if recipe and trace.num_classes == 1:
        raise ValueError(
            f"policy {policy.name!r} decides by class probabilities, and the trace has one output "
            "(regression): calibrate 'pabee' or 'budgeted'"
        )
    chosen = recipe(trace, goal, **options) if recipe else search(policy, trace, goal, **options)
    outcome = simulate(chosen, trace)
    chosen = dataclasses.replace(chosen, num_exits=trace.num_exits, num_classes=trace.num_classes)
    # Regression has no accuracy to expect.
    return chosen if trace.num_classes == 1 else chosen.expecting(expectation(outcome))
