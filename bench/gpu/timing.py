"""Times of calls on a GPU, in us: three clocks, and variants that take turns.

The GPU is a parameter throughout, so that all of this can be run on a stand-in.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from eefast.runtime.call_queue import CallQueue, CudaQueue

Call = Callable[[], Any]
Clock = Callable[[Call], float]
Step = TypeVar("Step", bound=Hashable)

HOLD_CYCLES_PER_US = 2000
"""Of `torch.cuda._sleep`. GPUs run at 1.3 to 2.6 GHz: a hold is as long as asked, or nearly."""


class Gpu:
    """The current CUDA device and its current stream. Tests put a stand-in here."""

    device = "cuda"

    def pinned(self, dtype: torch.dtype) -> torch.Tensor:
        """A scalar in host memory that the GPU can write to."""
        return torch.empty((), dtype=dtype, pin_memory=True)

    def call_queue(self) -> CallQueue:
        """Run-ahead's queue, of one slot for one sample."""
        return CudaQueue(1, 1, torch.device("cuda", torch.cuda.current_device()))

    def synchronize(self) -> None:
        torch.cuda.synchronize()

    def event(self) -> Any:
        return torch.cuda.Event(enable_timing=True)

    def hold(self, us: float) -> None:
        """Keep the GPU busy, so that what is enqueued next waits in the queue."""
        torch.cuda._sleep(int(us * HOLD_CYCLES_PER_US))

    @staticmethod
    def now_us() -> float:
        return time.perf_counter_ns() / 1e3

    def wall(self, call: Call) -> float:
        """From the call until the GPU is done and the host knows."""
        self.synchronize()
        start = self.now_us()
        call()
        self.synchronize()
        return self.now_us() - start

    def enqueue(self, call: Call) -> float:
        """Until the call returns, on an idle GPU, whatever the GPU does then."""
        self.synchronize()
        start = self.now_us()
        call()
        end = self.now_us()
        self.synchronize()
        return end - start

    def on_device(self, call: Call) -> float:
        """Between two CUDA events around the call: the GPU's time, its waits for the host too."""
        start, end = self.event(), self.event()
        self.synchronize()
        start.record()
        call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end) * 1e3)

    def queued(self, hold_us: float) -> Clock:
        """As `on_device`, but the GPU starts when all is enqueued, if that takes up to `hold_us`:
        its time alone."""

        def clock(call: Call) -> float:
            start, end = self.event(), self.event()
            self.synchronize()
            self.hold(hold_us)
            start.record()
            call()
            end.record()
            end.synchronize()
            return float(start.elapsed_time(end) * 1e3)

        return clock


def interleaved(
    variants: Mapping[str, Callable[[Step], Call]],
    clocks: Mapping[str, Clock],
    steps: Sequence[Step],
    *,
    seconds: float,
    rounds: tuple[int, int] = (3, 200),
    seed: int = 0,
    now: Callable[[], float] = time.monotonic,
) -> dict[str, dict[str, npt.NDArray[np.float64]]]:
    """Time every variant at every step with every clock, in an order shuffled anew for each step.

    Whatever slows the machine for a while then slows all variants alike. One round goes before,
    uncounted.

    Args:
        variants: by name; called with a step, each makes ready and gives the call to be timed.
        clocks: by name; a round goes through all steps once with each.
        steps: what the calls of a round differ in.
        seconds: after which no round is begun.
        rounds: at least so many, and at most.
        seed: of the order.
        now: in seconds.

    Returns:
        By clock and variant, [rounds, steps] in us.
    """
    order, names, start = random.Random(seed), list(variants), now()
    counted: list[dict[str, dict[str, list[float]]]] = []
    while len(counted) <= rounds[0] or (len(counted) <= rounds[1] and now() - start < seconds):
        of_round: dict[str, dict[str, list[float]]] = {c: {n: [] for n in names} for c in clocks}
        for clock, read in clocks.items():
            for step in steps:
                order.shuffle(names)
                for name in names:
                    of_round[clock][name].append(read(variants[name](step)))
        counted.append(of_round)
    return {
        clock: {name: np.array([r[clock][name] for r in counted[1:]]) for name in variants}
        for clock in clocks
    }


def summary(times: npt.NDArray[np.float64]) -> dict[str, float]:
    """Of [rounds, steps] in us: the mean over steps of the median over rounds, and the spread.

    p10 and p90 say how single calls lie about their step's median, scaled to that mean: steps
    differ by design, which is no spread.
    """
    medians = np.median(times, axis=0)
    us = float(medians.mean())
    low, high = np.percentile(times / np.where(medians, medians, 1), [10, 90]) * us
    return {"us": us, "p10_us": float(low), "p90_us": float(high), "calls": times.size}


def medians(
    gpu_calls: Mapping[str, Call], clock: Clock, *, seconds: float, rounds: tuple[int, int]
) -> dict[str, float]:
    """The median time of each call, the calls taking turns."""
    variants = {name: lambda _, call=call: call for name, call in gpu_calls.items()}
    times = interleaved(variants, {"": clock}, (None,), seconds=seconds, rounds=rounds)[""]
    return {name: summary(of_one)["us"] for name, of_one in times.items()}


def slope(us: Mapping[int, float]) -> tuple[float, float]:
    """What one more costs, and what none costs, from the times of several sizes."""
    more, none = np.polyfit(list(us), list(us.values()), 1)
    return float(more), float(none)
