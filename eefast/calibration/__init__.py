"""Calibration: policies whose numbers are chosen on a trace of validation data."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from eefast.calibration.beem import calibrate_beem
from eefast.calibration.search import best, settings_of
from eefast.policies import Policy
from eefast.trace import ExitTrace

__all__ = ["best", "calibrate", "settings_of"]


def calibrate(policy: str, trace: ExitTrace, **options: Any) -> Policy:
    """A policy whose weights and thresholds are chosen on validation data. Deterministic.

    Args:
        policy: "beem" (options: see `eefast.calibration.beem.calibrate_beem`), or "pabee",
            "pcee", "entropy", "confidence" (options `space`, the settings to choose from, and
            `tolerance`: see `eefast.calibration.search.best`).
        trace: every exit's logits on validation data, never on test data.

    Raises:
        ValueError: a policy without calibration, a trace that is empty or holds NaN, or options
            out of range.
        TypeError: options that the policy's calibration does not have.
    """
    if not isinstance(trace, ExitTrace):
        raise TypeError(f"trace must be an ExitTrace, got {type(trace).__name__}")
    if not len(trace.labels):
        raise ValueError("the trace holds no samples to calibrate on")
    if trace.logits.isnan().any():
        raise ValueError("the trace holds NaN logits: the model's training has diverged")
    chosen: Policy
    if policy == "beem":
        chosen = calibrate_beem(trace, **options)
    else:
        chosen = _calibrate_by_search(policy, trace, **options)
    chosen.check(trace.num_exits, trace.num_classes)
    return dataclasses.replace(chosen, num_exits=trace.num_exits, num_classes=trace.num_classes)


def _calibrate_by_search(
    policy: str,
    trace: ExitTrace,
    *,
    space: Sequence[Policy] | None = None,
    tolerance: float | None = None,
) -> Policy:
    settings = settings_of(policy, trace)  # also says which policies there are
    return best(settings if space is None else space, trace, tolerance)
