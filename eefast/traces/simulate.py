"""What a policy would do on a trace: exits, accuracy and speed-up, without running a model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from eefast.ops import ScorerKind, reached
from eefast.policies import Policy
from eefast.traces.metrics import answers_of, measure
from eefast.traces.trace import ExitTrace


@dataclass(frozen=True, eq=False, repr=False)
class Simulation:
    """The outcome of a policy on a trace of N samples and L exits."""

    exit: Tensor  # (N,) int64: 1-based exit at which each sample exits
    prediction: Tensor  # (N,) int64: the class; with one output (C = 1) float32: the number
    score: Tensor  # (N,) float32: the running score when it exits
    labels: Tensor  # (N,) int64, or float32
    exit_layers: tuple[int, ...]  # layer of each exit
    costs: tuple[float, ...]  # relative cost of each layer
    num_classes: int  # C

    def __repr__(self) -> str:
        accuracy = f"accuracy {self.accuracy:.3f}, " if self.num_classes > 1 else ""
        return (
            f"Simulation({len(self.labels)} samples; {accuracy}layer speed-up "
            f"{self.layer_speedup:.2f}, samples at each exit: {self.exit_histogram.tolist()})"
        )

    @cached_property
    def exit_layer(self) -> Tensor:
        """The layer after which each sample exits, [N] int64."""
        return torch.tensor(self.exit_layers, device=self.exit.device)[self.exit - 1]

    def metric(self, name: str) -> float:
        """A metric of the answers, NaN where it is undefined; see `eefast.traces.metrics.measure`.

        Raises:
            ValueError: an unknown metric, or one that is not of this task.
            ModuleNotFoundError: the package that it needs is not installed.
        """
        return measure(name, self.labels, self.prediction, self.num_classes)

    @property
    def accuracy(self) -> float:
        """Share of samples answered as labelled; NaN if there are none.

        Raises:
            ValueError: of a model with one output (regression).
        """
        return self.metric("accuracy")

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
            learned scores or similarities, and the trace has none.
        TypeError: not a policy or not a trace.
    """
    return simulate_all([policy], trace)[0]


def simulate_all(policies: Iterable[Policy], trace: ExitTrace) -> list[Simulation]:
    """`simulate` for each of some policies.

    Scores do not depend on thresholds: policies that differ in nothing else share one run of the
    recurrence, which makes searching them many times faster.
    """
    alike: dict[Any, list[tuple[int, Policy, Tensor]]] = {}
    for number, policy in enumerate(policies):
        if not isinstance(policy, Policy) or not isinstance(trace, ExitTrace):
            raise TypeError(
                "simulate takes a Policy and an ExitTrace, got "
                f"{type(policy).__name__} and {type(trace).__name__}"
            )
        policy.check(
            trace.num_exits,
            trace.num_classes,
            learned_scores=trace.scores is not None,
            similarity=trace.similarity is not None,
        )
        table = policy.table(trace.num_exits)
        # What scores depend on.
        weights_and_tau = tuple(table[:, ::2].flatten().tolist())
        used = policy.exits_used(trace.num_exits)
        networks = [policy.scorer_weights(exit) for exit in used]
        network = tuple(w.cpu().numpy().tobytes() for w in networks if w is not None)
        scoring = policy.recurrence, used, weights_and_tau, network
        alike.setdefault(scoring, []).append((number, policy, table))
    outcomes: dict[int, Simulation] = {}
    for group in alike.values():
        scores, predictions = _run(group[0][1], trace)
        for number, policy, table in group:
            exits = policy.exits_used(trace.num_exits)
            # The last exit always answers.
            place = torch.full_like(predictions[0], len(exits) - 1, dtype=torch.int64)
            for i in range(len(exits) - 2, -1, -1):
                threshold = table[exits[i] - 1, 1].item()
                place[reached(scores[i], threshold, strict=policy.strict)] = i
            outcomes[number] = Simulation(
                torch.tensor(exits, device=place.device)[place],
                predictions.gather(0, place[None])[0],
                scores.gather(0, place[None])[0],
                trace.labels,
                trace.exit_layers,
                trace.costs,
                trace.num_classes,
            )
    return [outcomes[number] for number in range(len(outcomes))]


def _run(policy: Policy, trace: ExitTrace) -> tuple[Tensor, Tensor]:
    """At each exit that the policy uses, scores float32 and the answers (`answers_of`) of samples
    that exit there, [used, N]. Neither depends on thresholds."""
    samples, device = len(trace.labels), trace.logits.device
    used, recurrence = policy.exits_used(trace.num_exits), policy.recurrence
    # Cut behind the last exit used, as plans cut it: some answer otherwise there.
    table = policy.table(trace.num_exits)[: used[-1]].to(device)
    learned = trace.scores if policy.scorer is ScorerKind.ROW else None
    values = recurrence.start(samples, trace.num_classes, trace.num_exits, device)
    scores, predictions = [], []
    for i in used:
        values, answer, _ = recurrence.step(
            values,
            trace.logits[i - 1],
            table,
            i,
            q=None if learned is None else learned[i - 1],
            scorer=policy.scorer_weights(i),
            similarity=None if trace.similarity is None else trace.similarity[i - 1],
        )
        scores.append(values.score)
        predictions.append(answers_of(answer))
    return torch.stack(scores), torch.stack(predictions)
