"""What a policy would do on a trace: exits, accuracy and speed-up, without running a model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from eefast.ops import ScorerKind
from eefast.policies import Policy
from eefast.traces.trace import ExitTrace


@dataclass(frozen=True, eq=False, repr=False)
class Simulation:
    """The outcome of a policy on a trace of N samples and L exits."""

    exit: Tensor  # (N,) int64: 1-based exit at which each sample exits
    prediction: Tensor  # (N,) int64
    score: Tensor  # (N,) float32: the running score when it exits
    labels: Tensor  # (N,) int64
    exit_layers: tuple[int, ...]  # layer of each exit
    costs: tuple[float, ...]  # relative cost of each layer

    def __repr__(self) -> str:
        return (
            f"Simulation({len(self.labels)} samples; accuracy {self.accuracy:.3f}, layer speed-up "
            f"{self.layer_speedup:.2f}, samples at each exit: {self.exit_histogram.tolist()})"
        )

    @cached_property
    def exit_layer(self) -> Tensor:
        """The layer after which each sample exits, [N] int64."""
        return torch.tensor(self.exit_layers, device=self.exit.device)[self.exit - 1]

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
    def cost_speedup(self) -> float:
        """Cost of the layers at full depth over that of the layers run.

        The layer speed-up where layers cost alike.
        """
        device = self.exit.device
        run = torch.tensor(self.costs, dtype=torch.float64, device=device).cumsum(0)
        return (run[-1] / run[self.exit_layer - 1].mean()).item()

    @property
    def layers_saved(self) -> float:
        """1 - mean layers / L, what many papers report as their speed-up."""
        return 1 - self.mean_layers / self.exit_layers[-1]

    @property
    def exit_histogram(self) -> Tensor:
        """How many samples exit at each exit, [L] int64."""
        return torch.bincount(self.exit - 1, minlength=len(self.exit_layers))


def simulate(policy: Policy, trace: ExitTrace) -> Simulation:
    """Run a policy's recurrence over a trace, for all samples at once.

    Raises:
        ValueError: the policy was calibrated for another number of exits or classes, or reads
            learned scores, and the trace has none.
        TypeError: not a policy or not a trace.
    """
    if not isinstance(policy, Policy) or not isinstance(trace, ExitTrace):
        raise TypeError(
            "simulate takes a Policy and an ExitTrace, got "
            f"{type(policy).__name__} and {type(trace).__name__}"
        )
    policy.check(trace.num_exits, trace.num_classes, learned_scores=trace.scores is not None)
    samples, device = len(trace.labels), trace.logits.device
    used = policy.exits_used(trace.num_exits)
    # The table ends with the last exit used, where every sample must exit.
    table = policy.table(trace.num_exits)[: used[-1]].to(device)
    recurrence = policy.recurrence
    scores = trace.scores if policy.scorer is ScorerKind.ROW else None
    values = recurrence.start(samples, trace.num_classes, trace.num_exits, device)
    exit = torch.zeros(samples, dtype=torch.int64, device=device)
    prediction, score = torch.empty_like(exit), torch.empty_like(values.score)
    for i in used:
        values, _, leaves = recurrence.step(
            values,
            trace.logits[i - 1],
            table,
            i,
            q=None if scores is None else scores[i - 1],
            scorer=policy.scorer_weights(i),
        )
        leaves = leaves & (exit == 0)
        exit[leaves] = i
        prediction[leaves] = values.prediction[leaves]
        score[leaves] = values.score[leaves]
    return Simulation(exit, prediction, score, trace.labels, trace.exit_layers, trace.costs)
