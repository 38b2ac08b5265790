"""Variants timed in turn, on the same inputs, in one process."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

Call = Callable[[], Any]
Clock = Callable[[Call], float]
"""Makes a call, and says how long it took."""

Step = TypeVar("Step")


def take_turns(
    variants: Mapping[str, Callable[[Step], Call]],
    clocks: Mapping[str, Clock],
    steps: Sequence[Step],
    *,
    rounds: tuple[int, int],
    seconds: float = math.inf,
    seed: int = 0,
    progress: bool = False,
    now: Callable[[], float] = time.monotonic,
) -> dict[str, dict[str, npt.NDArray[np.float64]]]:
    """Time every variant at every step with every clock, in an order shuffled anew for each step.

    Whatever slows the machine for a while then slows all variants alike, and none of them always
    follows the same one. One round is run first and does not count.

    Args:
        variants: by name; called with a step, each prepares a call and returns it.
        clocks: by name; a round visits all steps once with each.
        steps: how the calls of a round differ.
        rounds: the least and the most that count.
        seconds: after this no round is begun.
        seed: of the order.
        progress: show a progress bar, if stderr is a terminal.
        now: in seconds.

    Returns:
        By clock and variant, [rounds, steps] in the clock's unit.
    """
    order, names, start = random.Random(seed), list(variants), now()
    counted: list[dict[str, dict[str, list[float]]]] = []
    total = (rounds[1] + 1) * len(clocks) * len(steps)
    with tqdm(total=total, desc="timing", disable=None if progress else True) as bar:
        while len(counted) <= rounds[0] or (len(counted) <= rounds[1] and now() - start < seconds):
            of_round: dict[str, dict[str, list[float]]] = {
                clock: {name: [] for name in names} for clock in clocks
            }
            for clock, read in clocks.items():
                for step in steps:
                    order.shuffle(names)
                    for name in names:
                        of_round[clock][name].append(read(variants[name](step)))
                    bar.update()
            counted.append(of_round)
    return {
        clock: {name: np.array([r[clock][name] for r in counted[1:]]) for name in variants}
        for clock in clocks
    }


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
    prepared: Mapping[str, Callable[[Mapping[str, Any]], Call]] | None = None,
    rounds: int = 3,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, Latency]:
    """Wall-clock latency on the CPU: call every variant on every input, the variants taking turns.

    Args:
        variants: callables by name, called as `variant(**input)`.
        inputs: keyword arguments of one call each.
        prepared: variants that need something made ready for a call before the clock runs: given
            an input, each returns the call.
        rounds: how often each input is timed; the median counts.
        seed: of the order.
        progress: show a progress bar, if stderr is a terminal.
    """

    def called_with(variant: Callable[..., Any]) -> Callable[[Mapping[str, Any]], Call]:
        return lambda kwargs: partial(variant, **kwargs)

    times = take_turns(
        {name: called_with(variant) for name, variant in variants.items()} | dict(prepared or {}),
        {"wall": _wall_ns},
        inputs,
        rounds=(rounds, rounds),
        seed=seed,
        progress=progress,
    )["wall"]
    return {name: Latency(np.median(of_one, axis=0) / 1e6) for name, of_one in times.items()}


def summary(times: npt.NDArray[np.float64]) -> dict[str, float]:
    """Of [rounds, steps] in us: the mean over steps of the median over rounds, and the spread.

    p10 and p90 say how single calls lie about their step's median, scaled to that mean: steps
    differ by design, which is no spread.
    """
    of_steps = np.median(times, axis=0)
    us = float(of_steps.mean())
    low, high = np.percentile(times / np.where(of_steps, of_steps, 1), [10, 90]) * us
    return {"us": us, "p10_us": float(low), "p90_us": float(high), "calls": times.size}


def medians(
    calls: Mapping[str, Call], clock: Clock, *, seconds: float, rounds: tuple[int, int]
) -> dict[str, float]:
    """The median time of each call, the calls taking turns."""
    variants = {name: partial(_as_it_is, call) for name, call in calls.items()}
    times = take_turns(variants, {"": clock}, (None,), seconds=seconds, rounds=rounds)[""]
    return {name: summary(of_one)["us"] for name, of_one in times.items()}


def slope(us: Mapping[int, float]) -> tuple[float, float]:
    """What one more costs, and what none costs, from the times of several sizes."""
    more, none = np.polyfit(list(us), list(us.values()), 1)
    return float(more), float(none)


def _as_it_is(call: Call, step: None) -> Call:
    return call


def _wall_ns(call: Call) -> float:
    start = time.perf_counter_ns()
    call()
    return time.perf_counter_ns() - start
