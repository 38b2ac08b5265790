"""Calibration: policies whose numbers are chosen on a trace of validation data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from eefast.calibration.beem import calibrate_beem
from eefast.calibration.search import best, search
from eefast.policies import Policy, policy_class
from eefast.traces import ExitTrace

__all__ = ["best", "calibrate"]

_RECIPES: dict[str, Callable[..., Policy]] = {"beem": calibrate_beem}
"""Papers that choose their numbers in another way than by trying settings."""


def calibrate(policy: str | type[Policy], trace: ExitTrace, **options: Any) -> Policy:
    """A policy whose weights and thresholds are chosen on validation data. Deterministic.

    Args:
        policy: the name of a policy, or its class; a class of your own will do. "beem" is chosen
            by its paper's recipe (options: see `eefast.calibration.beem.calibrate_beem`), all
            others among `Policy.settings(trace)` (options: `space`, the policies to choose from
            instead, and `tolerance`; see `eefast.calibration.search`).
        trace: every exit's logits on validation data, never on test data, and what else the policy
            reads (see `eefast.record_trace`).

    Raises:
        ValueError: an unknown policy, one without settings, a trace that is empty, holds NaN or
            lacks what the policy reads, or options out of range.
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
    for what, numbers in (("logits", trace.logits), ("scores", trace.scores)):
        if numbers is not None and numbers.isnan().any():
            raise ValueError(f"the trace holds NaN {what}: the model's training has diverged")
    recipe = _RECIPES.get(policy.name)
    chosen = recipe(trace, **options) if recipe else search(policy, trace, **options)
    chosen.check(trace.num_exits, trace.num_classes, learned_scores=trace.scores is not None)
    return dataclasses.replace(chosen, num_exits=trace.num_exits, num_classes=trace.num_classes)
