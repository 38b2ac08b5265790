"""Repeated splits: how much a result depends on which samples a policy was calibrated on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from eefast.policies import Policy
from eefast.traces import ExitTrace, Simulation, simulate

SPLITS = 20

Chooser = Callable[[ExitTrace], Policy]
"""Calibrates a policy on a trace."""


class Spread(NamedTuple):
    """Of a figure over the splits."""

    median: float
    p10: float
    p90: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(*(float(x) for x in np.percentile(values, [50, 10, 90])))


@dataclass(frozen=True)
class Repeated:
    """A policy over all splits, judged where it was not calibrated.

    `accuracy_gain` and `speedup_gain` compare it with fixed depth, see `FixedDepth`: the
    difference in accuracy at its own mean number of layers, and the ratio of speed-ups at its own
    accuracy.
    """

    accuracy: Spread
    layer_speedup: Spread
    accuracy_gain: Spread
    speedup_gain: Spread


class FixedDepth:
    """One depth for all samples, judged on a trace: what early exit has to beat.

    A speed between two depths is that of a mix: each sample is answered at one of the two, drawn at
    random, so that mean layers and accuracy lie on the line between them. The two are the best pair
    for it: the curve is the upper hull of all depths, up to the most accurate. It is chosen with
    the labels of the trace, so it favours fixed depth, if anything.

    Args:
        layers: of each depth, ascending.
        accuracies: of each depth.
    """

    def __init__(self, layers: Sequence[int], accuracies: Sequence[float]) -> None:
        hull: list[tuple[float, float]] = []
        for layer, accuracy in zip(layers, accuracies, strict=True):
            if hull and accuracy <= hull[-1][1]:
                continue
            while len(hull) > 1 and _slope(hull[-2], hull[-1]) <= _slope(
                hull[-1], (layer, accuracy)
            ):
                hull.pop()
            hull.append((float(layer), accuracy))
        self._layers, self._accuracies = np.array(hull).T

    @classmethod
    def of(cls, trace: ExitTrace) -> FixedDepth:
        """A model cut at each of its exits."""
        return cls(trace.exit_layers, trace.accuracies().tolist())

    def accuracy_at(self, layers: float) -> float:
        """Accuracy at a mean number of layers."""
        return float(np.interp(layers, self._layers, self._accuracies))

    def layers_for(self, accuracy: float) -> float:
        """The mean number of layers for an accuracy.

        Those of the most accurate depth where none is that accurate, and of the first where all
        are more accurate.
        """
        return float(np.interp(accuracy, self._accuracies, self._layers))

    def accuracy_gain(self, outcome: Simulation) -> float:
        """Accuracy of a policy, less that of fixed depth at the same mean number of layers."""
        return outcome.accuracy - self.accuracy_at(outcome.mean_layers)

    def speedup_gain(self, outcome: Simulation) -> float:
        """Layer speed-up of a policy over that of fixed depth at the same accuracy."""
        return self.layers_for(outcome.accuracy) / outcome.mean_layers


def repeated_splits(
    choosers: Mapping[str, Chooser], pool: ExitTrace, *, splits: int = SPLITS, seed: int = 0
) -> dict[str, Repeated]:
    """Calibrate on a random half of a trace, judge on the other half, many times.

    Each half's accuracy varies over the splits about as much as one accuracy over the whole pool
    varies from sample to sample. Another training is not part of the spread.

    Args:
        choosers: by name, e.g. `lambda half: calibrate("pabee", half, max_accuracy_drop=0.005)`.
        pool: of samples that training has not seen.
        splits: how many.
        seed: of the splits.

    Returns:
        By name, medians and what lies between the 10 and the 90 % of the splits.

    Raises:
        ValueError: a pool of fewer than two samples, or as a chooser.
    """
    samples = len(pool.labels)
    if samples < 2:
        raise ValueError(f"pool must hold at least 2 samples to be split, got {samples}")
    generator = torch.Generator().manual_seed(seed)
    figures: dict[str, list[tuple[float, ...]]] = {name: [] for name in choosers}
    for _ in range(splits):
        order = torch.randperm(samples, generator=generator)
        half, judge = _part(pool, order[: samples // 2]), _part(pool, order[samples // 2 :])
        fixed = FixedDepth.of(judge)
        for name, choose in choosers.items():
            outcome = simulate(choose(half), judge)
            figures[name].append(
                (
                    outcome.accuracy,
                    outcome.layer_speedup,
                    fixed.accuracy_gain(outcome),
                    fixed.speedup_gain(outcome),
                )
            )
    return {
        name: Repeated(*(Spread.of(column) for column in zip(*rows, strict=True)))
        for name, rows in figures.items()
    }


def pooled(traces: Sequence[ExitTrace]) -> ExitTrace:
    """The samples of several traces of one model in one trace, without hidden vectors."""
    first = traces[0]
    scores = [trace.scores for trace in traces if trace.scores is not None]
    similarities = [trace.similarity for trace in traces if trace.similarity is not None]
    return ExitTrace(
        torch.cat([trace.logits for trace in traces], 1),
        torch.cat([trace.labels for trace in traces]),
        first.exit_layers,
        first.costs,
        torch.cat(scores, 1) if scores else None,
        similarity=torch.cat(similarities, 1) if similarities else None,
    )


def _part(trace: ExitTrace, rows: torch.Tensor) -> ExitTrace:
    scores = None if trace.scores is None else trace.scores[:, rows]
    similarity = None if trace.similarity is None else trace.similarity[:, rows]
    logits, labels = trace.logits[:, rows], trace.labels[rows]
    return ExitTrace(logits, labels, trace.exit_layers, trace.costs, scores, similarity=similarity)


def _slope(one: tuple[float, float], other: tuple[float, float]) -> float:
    return (other[1] - one[1]) / (other[0] - one[0])
