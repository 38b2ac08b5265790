"""Figures of a policy and what fixed depth would do, over resamples of the test samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eefast.evaluation import FixedDepth
from eefast.traces import ExitTrace, Simulation

RESAMPLES = 400
Figures = dict[str, np.ndarray]
"""Each figure on the samples themselves, then on every resample, [1 + RESAMPLES]."""


class Resampled:
    """The test samples of one study and seed, and 400 resamples of them, the same for all systems.

    So differences between systems are paired: they see the same samples.

    Args:
        test: a trace of the test samples; its model is what is cut at each exit.
        trained: traces of the same samples by models cut to k layers and trained as such, by k.
    """

    def __init__(self, test: ExitTrace, trained: Mapping[int, ExitTrace]) -> None:
        samples = len(test.labels)
        drawn = np.random.default_rng(0).multinomial(
            samples, np.full(samples, 1 / samples), RESAMPLES
        )
        counts = np.concatenate([np.ones((1, samples)), drawn])
        self._counts, self._samples = counts, samples
        self._depth = test.exit_layers[-1]
        exits = [self._mean(right) for right in _right(test)]
        cut = {layers: self._mean(_right(trace)[0]) for layers, trace in trained.items()}
        self._full = cut[self._depth]
        self._fixed = {
            "exits": _fixed_depths(test.exit_layers, exits),
            "trained": _fixed_depths(sorted(cut), [cut[layers] for layers in sorted(cut)]),
        }

    def figures(self, outcome: Simulation) -> Figures:
        """All figures of a policy.

        accuracy; difference: from the full model trained without exits; speedup: in layers;
        and over fixed depth, the exits of the same model ("exits") or models trained as such
        ("trained"): gain_..., accuracy at equal speed, and faster_..., speed at equal accuracy.
        """
        accuracy = self._mean(_answers_right(outcome))
        layers = self._mean(outcome.exit_layer.numpy())
        figures = {
            "accuracy": accuracy,
            "difference": accuracy - self._full,
            "speedup": self._depth / layers,
        }
        for name, fixed in self._fixed.items():
            there = zip(fixed, accuracy, layers, strict=True)
            pairs = np.array([(f.accuracy_at(n), f.layers_for(a)) for f, a, n in there])
            figures[f"gain_{name}"] = accuracy - pairs[:, 0]
            figures[f"faster_{name}"] = pairs[:, 1] / layers
        return figures

    def _mean(self, values: np.ndarray) -> np.ndarray:
        total: np.ndarray = self._counts @ values.astype(np.float64)  # whole numbers: exact
        return total / self._samples


def summary(seeds: Sequence[np.ndarray]) -> dict[str, Any]:
    """A figure over seeds: the median, its 95 % bootstrap interval, and each seed's.

    The interval is of the median over the same seeds with other test samples; that another
    training differs is seen by the seeds alone.
    """
    median = np.median(np.stack(seeds), 0)
    low, high = np.percentile(median[1:], [2.5, 97.5])
    return {
        "median": _rounded(median[0]),
        "low": _rounded(low),
        "high": _rounded(high),
        "seeds": [_rounded(figure[0]) for figure in seeds],
    }


def _rounded(value: float) -> float:
    """Six digits: the rest is the order of sums, which is not the same everywhere."""
    return round(float(value), 6)


def _right(trace: ExitTrace) -> np.ndarray:
    right: np.ndarray = (trace.logits.argmax(-1) == trace.labels).numpy()
    return right


def _answers_right(outcome: Simulation) -> np.ndarray:
    right: np.ndarray = (outcome.prediction == outcome.labels).numpy()
    return right


def _fixed_depths(layers: Sequence[int], accuracies: Sequence[np.ndarray]) -> list[FixedDepth]:
    """Of each resample."""
    return [FixedDepth(layers, row) for row in np.stack(accuracies, 1).tolist()]
