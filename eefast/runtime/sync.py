"""The sync runtime: the host asks after every exit and waits for the answer."""

from __future__ import annotations

from typing import ClassVar

from eefast.backbones import Backbone, Inputs
from eefast.ops import ExitState, Impl
from eefast.runtime.batch import Batches
from eefast.runtime.plan import Plan
from eefast.runtime.stats import CallStats, RuntimeStats


class SyncRuntime:
    """Drives layers and exit steps as the papers' code does: the baseline to beat.

    After every exit, the last one included, the host reads with `.item()` whether any sample is
    still running; on a GPU it waits there until all work is done, and the GPU then waits for the
    host. Samples that have exited stay in the batch until the last one exits.
    """

    device_type: ClassVar[str | None] = None
    options: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, backbone: Backbone, num_classes: int, impl: Impl) -> None:
        self._batches = Batches(backbone, num_classes, impl)

    def run(self, plan: Plan, inputs: Inputs, stats: RuntimeStats | None = None) -> ExitState:
        """See `Runtime.run`."""
        batch = self._batches.open(plan, inputs)
        if not batch.size:
            return batch.state
        batch.start(inputs)
        asked = 0
        for stage in plan.stages:
            batch.run(stage)
            asked += 1
            if not batch.state.running[stage.exit - 1].item():
                break
        batch.finish()
        if stats is not None:
            stats.add(CallStats(batch.size, stage.layers.stop - 1, 0, asked, asked, 0))
        return batch.state

    def close(self) -> None:
        """There is nothing to give up."""
