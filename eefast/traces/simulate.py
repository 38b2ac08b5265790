"""What a policy would do on a trace: exits, accuracy and speed-up, without running a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from eefast.ops import advance, reached, signals
from eefast.policies import Policy
from eefast.trace import ExitTrace


@dataclass(frozen=True)
class Simulation:
    """The outcome of a policy on a trace of N samples and L exits."""

    exit: Tensor  # (N,) int64: 1-based exit at which each sample leaves
    prediction: Tensor  # (N,) int64
    score: Tensor  # (N,) float32: the running score when it leaves
    labels: Tensor  # (N,) int64
    exit_layers: tuple[int, ...]  # layer of each exit

    @cached_property
    def exit_layer(self) -> Tensor:
        """The layer after which each sample leaves, [N] int64."""
        return torch.tensor(self.exit_layers)[self.exit - 1]

    @property
    def accuracy(self) -> float:
        """Share of samples answered as labelled; NaN if there are none."""
        return (self.prediction == self.labels).double().mean().item()

    @property
    def mean_layers(self) -> float:
        """Layers that a sample runs on average; NaN if there are no samples."""
        return self.exit_layer.double().mean().item()

    @property
    def layer_speedup(self) -> float:
        """Layers at full depth over layers run: sum(L n_i) / sum(i n_i)."""
        return self.exit_layers[-1] / self.mean_layers

    @property
    def layers_saved(self) -> float:
        """1 - mean layers / L, what many papers report as their speed-up."""
        return 1 - self.mean_layers / self.exit_layers[-1]

    @property
    def exit_histogram(self) -> Tensor:
        """How many samples leave at each exit, [L] int64."""
        return torch.bincount(self.exit - 1, minlength=len(self.exit_layers))


def simulate(policy: Policy, trace: ExitTrace) -> Simulation:
    """Run a policy's recurrence over a trace, for all samples at once.

    Raises:
        ValueError: the policy was calibrated for another number of exits or classes.
        TypeError: not a policy or not a trace.
    """
    if not isinstance(policy, Policy) or not isinstance(trace, ExitTrace):
        raise TypeError(
            "simulate takes a Policy and an ExitTrace, got "
            f"{type(policy).__name__} and {type(trace).__name__}"
        )
    policy.check(trace.num_exits, trace.num_classes)
    table = policy.table(trace.num_exits)
    samples = len(trace.labels)
    score = torch.zeros(samples, dtype=torch.float32)
    previous = torch.full((samples,), -1)
    exit = torch.zeros(samples, dtype=torch.int64)
    last = policy.exits_used(trace.num_exits)[-1]
    answer, final_score = torch.empty(samples, dtype=torch.int64), torch.empty(samples)
    for i in policy.exits_used(trace.num_exits):
        weight, threshold, tau = table[i - 1]
        now = signals(trace.logits[i - 1])
        score = advance(
            score, previous, now, keep=policy.keep, gain=policy.gain, weight=weight, tau=tau
        )
        leaves = (exit == 0) & (reached(score, threshold, strict=policy.strict) | (i == last))
        exit[leaves] = i
        answer[leaves] = now.prediction[leaves]
        final_score[leaves] = score[leaves]
        previous = now.prediction
    return Simulation(exit, answer, final_score, trace.labels, trace.exit_layers)


class TradeOffPoint(NamedTuple):
    """One setting of a policy on a trade-off curve."""

    policy: Policy
    layer_speedup: float
    accuracy: float


def trade_off(policies: Iterable[Policy], trace: ExitTrace) -> list[TradeOffPoint]:
    """Accuracy and layer speed-up of each setting, sorted by speed-up: a trade-off curve."""
    outcomes = [(policy, simulate(policy, trace)) for policy in policies]
    points = [TradeOffPoint(p, s.layer_speedup, s.accuracy) for p, s in outcomes]
    return sorted(points, key=lambda point: (point.layer_speedup, point.accuracy))


def pareto_front(points: Sequence[TradeOffPoint]) -> list[TradeOffPoint]:
    """The points that no other beats in both speed-up and accuracy, sorted by speed-up."""
    front: list[TradeOffPoint] = []
    for point in sorted(points, key=lambda p: (-p.layer_speedup, -p.accuracy)):
        if not front or point.accuracy > front[-1].accuracy:
            front.append(point)
    return front[::-1]
