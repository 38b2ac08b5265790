"""Choosing among settings of a policy by their results on validation data."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TypeVar

from eefast.policies import Policy
from eefast.policies.values import number
from eefast.traces import ExitTrace, simulate_all

P = TypeVar("P", bound=Policy)
logger = logging.getLogger(__name__)


def best(
    settings: Sequence[P],
    trace: ExitTrace,
    *,
    target_speedup: float | None = None,
    max_accuracy_drop: float | None = None,
) -> P:
    """The best of some settings on a trace: the most accurate, among equals the fastest.

    Args:
        settings: policies to choose from.
        trace: validation data.
        target_speedup: only settings that reach at least this layer speed-up count.
        max_accuracy_drop: the fastest setting instead, among those whose accuracy is at most this
            far below the last exit's (0.005 is half a point), among equals the most accurate. If
            none is that good, the most accurate one, and a warning is logged.

    Raises:
        ValueError: no settings, none that reaches the speed-up (the message names the highest
            there is), a speed-up below 1, a drop outside [0, 1], or both at once.
    """
    if not settings:
        raise ValueError("the space to search must hold at least one setting, got none")
    check_targets(target_speedup, max_accuracy_drop)
    outcomes = [(s.accuracy, s.layer_speedup) for s in simulate_all(settings, trace)]
    ranked = range(len(settings))
    name = settings[0].name
    if target_speedup is not None:
        fast = [i for i in ranked if outcomes[i][1] >= target_speedup]
        if not fast:
            fastest = max(speedup for _, speedup in outcomes)
            raise ValueError(
                f"no setting of {name!r} reaches target_speedup {target_speedup:g} on this trace: "
                f"the fastest reaches {fastest:.4g}"
            )
        return settings[max(fast, key=lambda i: outcomes[i])]
    if max_accuracy_drop is not None:
        last = trace.accuracies()[-1].item()
        floor = last - max_accuracy_drop - 1e-9  # 0.8 - 0.1 is above 0.7
        good = [i for i in ranked if outcomes[i][0] >= floor]
        if good:
            return settings[max(good, key=lambda i: outcomes[i][::-1])]
        logger.warning(
            "no setting of %r loses at most %g against the last exit's accuracy %.3f on this "
            "trace: the most accurate, %.3f, is taken",
            name, max_accuracy_drop, last, max(outcomes)[0],
        )  # fmt: skip
    return settings[max(ranked, key=lambda i: outcomes[i])]


def check_targets(target_speedup: float | None, max_accuracy_drop: float | None) -> None:
    """Raise ValueError unless at most one is given, a speed-up of 1 or more or a drop in [0, 1]."""
    if target_speedup is not None and max_accuracy_drop is not None:
        raise ValueError(
            "calibrate takes target_speedup or max_accuracy_drop, got both "
            f"({target_speedup} and {max_accuracy_drop})"
        )
    if target_speedup is not None:
        number("calibrate", "target_speedup", target_speedup, 1)
    if max_accuracy_drop is not None:
        number("calibrate", "max_accuracy_drop", max_accuracy_drop, 0, 1)


def search(
    policy: type[P],
    trace: ExitTrace,
    *,
    space: Iterable[P] | None = None,
    target_speedup: float | None = None,
    max_accuracy_drop: float | None = None,
) -> P:
    """The best setting of a policy, see `best`.

    Args:
        policy: its class.
        trace: validation data.
        space: settings to choose from; None: `policy.settings(trace)`.
        target_speedup: see `best`.
        max_accuracy_drop: see `best`.

    Raises:
        ValueError: the policy has no settings and there is no space, or as `best`.
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
    return best(settings, trace, target_speedup=target_speedup, max_accuracy_drop=max_accuracy_drop)
