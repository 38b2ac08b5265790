"""Choosing among settings of a policy by their results on validation data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from eefast.calibration.goal import Goal
from eefast.policies import Policy
from eefast.traces import ExitTrace

P = TypeVar("P", bound=Policy)


def search(policy: type[P], trace: ExitTrace, goal: Goal, *, space: Iterable[P] | None = None) -> P:
    """The best setting of a policy, see `Goal.best`.

    Args:
        policy: its class.
        trace: validation data.
        goal: what is best.
        space: settings to choose from; None: `policy.settings(trace)`.

    Raises:
        ValueError: the policy has no settings and there is no space, or as `Goal.best`.
        TypeError: the space holds something else than such policies.
    """
    if space is None:
        space = policy.settings(trace)
    if not isinstance(space, Iterable):
        raise TypeError(f"space must be a list of {policy.__name__} policies, got {space!r}")
    settings = list(space)
    for setting in settings:
        if not isinstance(setting, policy):
            raise TypeError(f"space must hold {policy.__name__} policies, got {setting!r}")
    return goal.best(settings, trace)
