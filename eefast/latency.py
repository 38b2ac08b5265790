"""Wall-clock latency: variants timed in turn, on the same inputs, in one process."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm


@dataclass(frozen=True)
class Latency:
    """Times of one variant: for each input, the median of its rounds, in milliseconds."""

    per_input_ms: npt.NDArray[np.float64]  # (N,)

    @property
    def p50_ms(self) -> float:
        return float(np.percentile(self.per_input_ms, 50))

    @property
    def p90_ms(self) -> float:
        return float(np.percentile(self.per_input_ms, 90))

    @property
    def total_ms(self) -> float:
        """All inputs, one after another."""
        return float(self.per_input_ms.sum())


def time_interleaved(
    variants: Mapping[str, Callable[..., Any]],
    inputs: Sequence[Mapping[str, Any]],
    *,
    rounds: int = 3,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, Latency]:
    """Call every variant on every input, in an order shuffled anew for each input.

    Whatever slows the machine for a while then slows all variants alike, and none of them always
    follows the same one. One round goes before, uncounted.

    Args:
        variants: callables by name, called as `variant(**input)`.
        inputs: keyword arguments of one call each.
        rounds: times each input is gone over; its median counts.
        seed: of the order.
        progress: show a progress bar.
    """
    order = random.Random(seed)
    names = list(variants)
    times = {name: np.empty((rounds + 1, len(inputs))) for name in names}
    with tqdm(total=(rounds + 1) * len(inputs), desc="timing", disable=not progress) as bar:
        for turn in range(rounds + 1):
            for i, kwargs in enumerate(inputs):
                order.shuffle(names)
                for name in names:
                    call = variants[name]
                    start = time.perf_counter_ns()
                    call(**kwargs)
                    times[name][turn, i] = time.perf_counter_ns() - start
                bar.update()
    return {name: Latency(np.median(t[1:], 0) / 1e6) for name, t in times.items()}
