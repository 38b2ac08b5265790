"""What a policy's settings are chosen for: a metric, and at most one limit."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

from eefast.calibration.costs import Costs
from eefast.policies import Budgeted, Policy
from eefast.policies.values import number
from eefast.traces import ExitTrace, Simulation, simulate, simulate_all

P = TypeVar("P", bound=Policy)
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Goal:
    """What the best setting of a policy is. Without a limit: the highest metric.

    Args:
        target_speedup: only settings whose layer speed-up is at least this count.
        max_accuracy_drop: the fastest setting instead, among those whose metric is at most this far
            below the last exit's (0.005 is half a point).
        budget: only settings whose mean cost per sample is at most this count.
        costs: what `budget` counts; a list: the cost of each layer. None: the trace's, layers.
        metric: what `Simulation.metric` knows.

    Raises:
        ValueError: a speed-up below 1, a drop outside [0, 1], a negative budget, several of these,
            or costs without a budget.
    """

    target_speedup: float | None = None
    max_accuracy_drop: float | None = None
    budget: float | None = None
    costs: Costs | Sequence[float] | None = None
    metric: str = "accuracy"

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in _LIMITS}
        given = {name: value for name, value in given.items() if value is not None}
        for name, value in given.items():
            number("calibrate", name, value, *_LIMITS[name])
        if len(given) > 1:
            raise ValueError(
                "calibrate takes one of target_speedup, max_accuracy_drop and budget, got "
                + " and ".join(f"{name}={value}" for name, value in given.items())
            )
        if self.costs is not None:
            if self.budget is None:
                raise ValueError("costs goes with budget, got costs and no budget")
            if not isinstance(self.costs, Costs):
                object.__setattr__(self, "costs", Costs(self.costs, unit="cost"))  # type: ignore[arg-type]

    def __str__(self) -> str:
        asked = {f.name: getattr(self, f.name) for f in fields(self)}
        return ", ".join(f"{name}={v}" for name, v in asked.items() if v != getattr(Goal, name))

    @property
    def limited(self) -> bool:
        """Whether there is a limit beside the metric."""
        return any(getattr(self, name) is not None for name in _LIMITS)

    def costs_of(self, trace: ExitTrace) -> Costs:
        """What the budget counts on this trace."""
        return self.costs if isinstance(self.costs, Costs) else Costs(trace.costs)

    def best(self, settings: Sequence[P], trace: ExitTrace) -> P:
        """The best of some settings on a trace; among equals the fastest, or the cheapest.

        If none loses as little as `max_accuracy_drop`, the one of the highest metric is taken, and
        a warning is logged.

        Args:
            settings: policies to choose from.
            trace: validation data.

        Raises:
            ValueError: no settings, none within the limit (the message names what can be had), an
                unknown metric, or costs of another number of layers or exits.
        """
        if not settings:
            raise ValueError("the space to search must hold at least one setting, got none")
        name, ranked = settings[0].name, list(range(len(settings)))
        outcomes = simulate_all(settings, trace)
        quality = [_quality(outcome, self.metric) for outcome in outcomes]
        if self.budget is None:
            speed = [outcome.layer_speedup for outcome in outcomes]
        else:
            costs = self.costs_of(trace)
            speed = [-costs.per_sample(*pair) for pair in zip(settings, outcomes, strict=True)]
        if self.target_speedup is not None:
            ranked = [i for i in ranked if speed[i] >= self.target_speedup]
            if not ranked:
                raise ValueError(
                    f"no setting of {name!r} reaches target_speedup {self.target_speedup:g} on "
                    f"this trace: the fastest reaches {max(speed):.4g}"
                )
        if self.budget is not None:
            most = self.budget * (1 + 1e-9)  # 0.1 + 0.2 is within 0.3
            ranked = [i for i in ranked if -speed[i] <= most]
            if not ranked:
                raise ValueError(
                    f"no setting of {name!r} keeps within budget {self.budget:g} ({costs.unit} per "
                    f"sample) on this trace: the cheapest takes {-max(speed):.4g}"
                )
        if self.max_accuracy_drop is not None:
            last = _quality(simulate(Budgeted(trace.num_exits), trace), self.metric)
            floor = last - self.max_accuracy_drop - 1e-9  # 0.8 - 0.1 is above 0.7
            good = [i for i in ranked if quality[i] >= floor]
            if good:
                return settings[max(good, key=lambda i: (speed[i], quality[i]))]
            logger.warning(
                "no setting of %r loses at most %g against the last exit's %s %.3f on this "
                "trace: the best, %.3f, is taken",
                name, self.max_accuracy_drop, self.metric, last, max(quality),
            )  # fmt: skip
        return settings[max(ranked, key=lambda i: (quality[i], speed[i]))]


_LIMITS = {
    "target_speedup": (1, math.inf),
    "max_accuracy_drop": (0, 1),
    "budget": (0, math.inf),
}
"""The lowest and the highest value of each."""


def _quality(outcome: Simulation, metric: str) -> float:
    value = outcome.metric(metric)
    return -math.inf if math.isnan(value) else value  # a correlation with a constant
