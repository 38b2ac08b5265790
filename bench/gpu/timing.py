"""The clocks of a GPU, in us.

The GPU is a parameter throughout bench/gpu, so that all of it can be run on a stand-in.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from eefast.measure.timing import Call, Clock
from eefast.runtime.call_queue import CallQueue, CudaQueue

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
