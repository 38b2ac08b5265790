"""What to expect of a policy, with bootstrap intervals."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from eefast.policies.expected import Expected
from eefast.traces import Simulation

RESAMPLES = 10_000
SEED = 0


def expectation(outcome: Simulation) -> Expected:
    """Accuracy and layer speed-up of a simulation of at least one sample, with 95 % intervals.

    The bootstrap draws as many samples as there are, with replacement, 10,000 times (seed 0), and
    takes percentiles. Samples that exit alike and are right or wrong alike are interchangeable: it
    is enough to draw how many there are of each kind, a multinomial.
    """
    exits, samples = len(outcome.exit_layers), len(outcome.labels)
    right = (outcome.prediction == outcome.labels).long()
    kinds = torch.bincount(2 * (outcome.exit - 1) + right, minlength=2 * exits).cpu().numpy()
    drawn = np.random.default_rng(SEED).multinomial(samples, kinds / samples, size=RESAMPLES)
    layers = np.array(outcome.exit_layers)
    accuracy = drawn[:, 1::2].sum(1) / samples
    speedup = layers[-1] * samples / (drawn @ layers.repeat(2))
    return Expected(
        outcome.accuracy,
        _interval(accuracy),
        outcome.layer_speedup,
        _interval(speedup),
        samples,
    )


def _interval(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
