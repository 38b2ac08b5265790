"""Choosing among settings of a policy by their results on validation data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from eefast.policies import Policy
from eefast.traces import ExitTrace, simulate_all

P = TypeVar("P", bound=Policy)


def best(settings: Sequence[P], trace: ExitTrace, tolerance: float | None = None) -> P:
    """The best of some settings on a trace.

    Args:
        settings: policies to choose from.
        trace: validation data.
        tolerance: None: the highest accuracy, among equals the fastest. A number: the fastest
            whose accuracy is at most that far below the last exit's (0.005 is half a point),
            among equals the most accurate; if none is that good, the highest accuracy.

    Raises:
        ValueError: no settings, or a negative tolerance.
    """
    if not settings:
        raise ValueError("the space to search must hold at least one setting, got none")
    if tolerance is not None and not tolerance >= 0:
        raise ValueError(f"tolerance must be 0 or more, got {tolerance}")
    outcomes = [(s.accuracy, s.layer_speedup) for s in simulate_all(settings, trace)]
    ranked = range(len(settings))
    if tolerance is not None:
        floor = trace.accuracies()[-1].item() - tolerance - 1e-9  # 0.8 - 0.1 is above 0.7
        good = [i for i in ranked if outcomes[i][0] >= floor]
        if good:
            return settings[max(good, key=lambda i: outcomes[i][::-1])]
    return settings[max(ranked, key=lambda i: outcomes[i])]


def search(
    policy: type[P],
    trace: ExitTrace,
    *,
    space: Sequence[P] | None = None,
    tolerance: float | None = None,
) -> P:
    """The best setting of a policy, see `best`.

    Args:
        policy: its class.
        trace: validation data.
        space: settings to choose from; None: `policy.settings(trace)`.
        tolerance: see `best`.

    Raises:
        ValueError: the policy has no settings and there is no space, or as `best`.
        TypeError: the space holds something else than such policies.
    """
    settings = policy.settings(trace) if space is None else list(space)
    for setting in settings:
        if not isinstance(setting, policy):
            raise TypeError(f"space must hold {policy.__name__} policies, got {setting!r}")
    return best(settings, trace, tolerance)
