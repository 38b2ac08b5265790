"""The run-ahead runtime, for CUDA: layers are enqueued while earlier decisions are in flight.

If the host asks after every layer whether to continue, the GPU idles until the host has read the
answer. Here the host does not ask: each exit's outcome is copied into pinned host memory after the
exit step, and the host reads it there, with a plain memory read, before it enqueues more. If the
outcome is late, the GPU works on the next stage meanwhile. The price is work that turns out to be
in vain, and `depth` bounds it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch

from eefast.backbones import Backbone, Inputs
from eefast.ops import ExitState, Impl
from eefast.runtime.batch import Batches
from eefast.runtime.call_queue import CallQueue, CudaQueue
from eefast.runtime.plan import Plan
from eefast.runtime.stats import CallStats, RuntimeStats

TOKENS_THAT_FILL = 4096
"""Below so many tokens a layer takes the same time however few there are.

A matrix product of T tokens makes T/128 * D/128 tiles of 128 x 128, and the GPU computes about one
tile per multiprocessor at a time: with D = 768 the 132 multiprocessors of an H100 are all busy from
2816 tokens on, with D = 384 from 5632. By arithmetic; no GPU has measured it.
"""

EVICTION_TOKENS = TOKENS_THAT_FILL // 2
"""What the launches of an eviction cost, in tokens that a layer could compute meanwhile.

An eviction is one copy to the device and an `index_select` of the hidden states and of the mask; a
layer is a dozen launches or more. Half a layer is on the safe side.
"""

ROWS_COPIED_PER_LAYER_ROW = 8
"""How many rows can be copied in the time in which a layer computes one.

A row is 4 T D bytes to copy (read and written, 16 bits each) and 24 T D^2 operations to compute. By
an H100's data sheet (3.35 TB/s, 989 TFLOP/s) that takes 8 times as long for D = 384, and longer for
wider models; no GPU has measured it.
"""


class RunAheadRuntime:
    """Drives layers and exit steps on a GPU without waiting for decisions, for any shape.

    A stage is the layers up to and including the next exit that the policy uses. Before a stage is
    enqueued, the host takes in what has arrived; it stops as soon as it learns that no sample is
    running. It waits, for an event, only where the stage would be more than `depth` stages ahead of
    the last decision known. So at most `depth` stages run after the one in which the last sample
    exited. Their layers are wasted (`CallStats.layers_wasted` counts them), but change no answer:
    an exit step never touches a sample that has exited.

    The result is returned while the GPU may still be working on it; reading it waits.

    Rows whose sample has exited are evicted from the batch where that pays (`_evicting_pays`).
    Which have is taken from the last outcome that has arrived, so that evicting waits for nothing:
    rows that exited since stay a while longer, untouched.

    Args:
        backbone: on a CUDA device.
        num_classes: C.
        impl: implementation of the exit step.
        depth: how many stages the host may be ahead; with 0 it waits for every decision.
        new_queue: makes the queue of a call from (slots, samples, device).

    Raises:
        ValueError: a negative depth, or an implementation that does not fit the model.
        TypeError, RuntimeError: as `eefast.ops.implementation`.
    """

    device_type: ClassVar[str | None] = "cuda"
    options: ClassVar[frozenset[str]] = frozenset({"depth"})

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        impl: Impl,
        depth: int = 1,
        new_queue: Callable[[int, int, torch.device], CallQueue] = CudaQueue,
    ) -> None:
        if depth < 0:
            raise ValueError(f"depth must be 0 or more stages, got {depth}")
        self._batches = Batches(backbone, num_classes, impl)
        self._depth = depth
        self._new_queue = new_queue

    def run(self, plan: Plan, inputs: Inputs, stats: RuntimeStats | None = None) -> ExitState:
        """See `Runtime.run`; at most `depth` stages more are run than any sample needs."""
        batch = self._batches.open(plan, inputs)
        samples = batch.size
        if not samples:
            return batch.state
        batch.start(inputs)
        hidden = batch.hidden
        tokens = hidden.numel() // (samples * hidden.shape[-1])  # of a row
        last = len(plan.stages) - 1
        queue = self._new_queue(last, samples, hidden.device)  # the last exit needs no slot
        news = _News(queue, self._depth)
        rows = np.arange(samples)
        enqueued = evictions = 0
        for number, stage in enumerate(plan.stages):
            if not news.sample_runs(number):
                break
            if samples > 1 and news.exit_layer is not None:
                stay = np.flatnonzero(news.exit_layer[rows] == 0)
                if _evicting_pays(len(rows), len(stay), tokens, len(stage.layers)):
                    rows = rows[stay]
                    queue.enqueue(partial(batch.keep, *queue.send(np.stack((stay, rows)))))
                    evictions += 1
            queue.enqueue(partial(batch.run, stage))
            if number < last:
                queue.publish(number, batch.state.exit_layer)
            enqueued += 1
        queue.enqueue(batch.finish)
        if stats is not None:
            stats.add(partial(_count, plan, samples, queue, enqueued, news.waits, evictions))
        return batch.state

    def close(self) -> None:
        """There is nothing to give up: a call under way holds what it needs."""


class _News:
    """What the host knows of a call's decisions so far."""

    def __init__(self, queue: CallQueue, depth: int) -> None:
        self._queue = queue
        self._depth = depth
        self._decided = 0  # exits behind which a sample is known to have been running
        self.exit_layer: npt.NDArray[np.int32] | None = None  # [N], the latest that has arrived
        self.waits = 0

    def sample_runs(self, enqueued: int) -> bool:
        """False if no sample runs, as far as is known; waits only to keep within `depth`."""
        while self._decided < enqueued:
            exit_layer = self._queue.poll(self._decided)
            if exit_layer is None:
                if enqueued - self._decided <= self._depth:
                    return True
                exit_layer = self._queue.wait(self._decided)
                self.waits += 1
            if exit_layer.all():
                return False
            self.exit_layer = exit_layer
            self._decided += 1
        return True


def _evicting_pays(rows: int, stay: int, tokens: int, layers: int) -> bool:
    """Whether evicting rows costs less than the layers of the coming stage gain by it.

    All in tokens that a layer computes. Layers behind the coming stage do not count: every
    sample may have exited by then.
    """
    before, after = rows * tokens, stay * tokens
    gain = layers * (max(before, TOKENS_THAT_FILL) - max(after, TOKENS_THAT_FILL))
    return gain > EVICTION_TOKENS + after / ROWS_COPIED_PER_LAYER_ROW


def _count(
    plan: Plan, samples: int, queue: CallQueue, enqueued: int, waits: int, evictions: int
) -> CallStats:
    published = min(enqueued, len(plan.stages) - 1)
    needed = 1 + next((i for i in range(published) if queue.wait(i).all()), published)
    stop, needed_stop = (plan.stages[n - 1].layers.stop for n in (enqueued, needed))
    return CallStats(samples, stop - 1, stop - needed_stop, enqueued, waits, evictions)
