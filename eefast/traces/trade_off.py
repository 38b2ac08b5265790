"""Trade-off curves: accuracy over layer speed-up of many settings, and the best of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from eefast.policies import Policy
from eefast.traces.simulate import simulate_all
from eefast.traces.trace import ExitTrace


class TradeOffPoint(NamedTuple):
    """One setting of a policy on a trade-off curve."""

    policy: Policy
    layer_speedup: float
    accuracy: float


def trade_off(policies: Iterable[Policy], trace: ExitTrace) -> list[TradeOffPoint]:
    """Accuracy and layer speed-up of each setting, sorted by speed-up: a trade-off curve."""
    policies = list(policies)
    outcomes = zip(policies, simulate_all(policies, trace), strict=True)
    points = [TradeOffPoint(p, s.layer_speedup, s.accuracy) for p, s in outcomes]
    return sorted(points, key=lambda point: (point.layer_speedup, point.accuracy))


def pareto_front(points: Sequence[TradeOffPoint]) -> list[TradeOffPoint]:
    """The points that no other beats in both speed-up and accuracy, sorted by speed-up."""
    front: list[TradeOffPoint] = []
    for point in sorted(points, key=lambda p: (-p.layer_speedup, -p.accuracy)):
        if not front or point.accuracy > front[-1].accuracy:
            front.append(point)
    return front[::-1]
