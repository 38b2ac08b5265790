"""`RuntimeStats`: what each call of a compiled model did, counted when asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class CallStats(NamedTuple):
    """What one call did. A layer counts once, whatever the number of rows it ran on."""

    samples: int
    layers_run: int  # up to the last one run, the wasted ones included
    layers_wasted: int  # of those, the ones after the last sample's exit
    exit_steps: int
    host_syncs: int  # how often the host waited for the device
    evictions: int  # times that exited rows were evicted from the batch
    # Made by the host, a graph being one; None where PyTorch launches and does not say.
    kernel_launches: int | None = None


class RuntimeStats:
    """A record of calls: `fast.stats = RuntimeStats()` begins one, `fast.stats = None` ends it.

    Several threads may call while it records: a call adds one entry when it ends, so entries are in
    the order of the ends. A call that raises adds none, nor does one with an empty batch.
    """

    def __init__(self) -> None:
        self._calls: list[CallStats | Callable[[], CallStats]] = []

    def add(self, call: CallStats | Callable[[], CallStats]) -> None:
        """Add one call; or a function that `calls` calls, if not everything is known yet."""
        self._calls.append(call)

    @property
    def calls(self) -> list[CallStats]:
        """One entry per call. Waits for the calls that the device is still working on."""
        known = [call() if callable(call) else call for call in tuple(self._calls)]
        # In place: another thread may have added a call meanwhile.
        self._calls[: len(known)] = known
        return known
