"""The sync runtime: the host asks after every exit and waits for the answer."""

from __future__ import annotations

from typing import ClassVar

from eefast.backbones import ModelInputs
from eefast.multi_exit import MultiExitModel
from eefast.ops import ExitState, Impl
from eefast.runtime.batch import Batches
from eefast.runtime.plan import Plan
from eefast.runtime.stats import CallStats, RuntimeStats


class SyncRuntime:
    """Drives layers and exit steps as the papers' code does: the baseline to beat.

    After every exit, the last one included, the host reads with `.item()` whether anybody is still
    running; on a GPU it waits there until all work is done, and the GPU then waits for the host.
    Samples that have left stay in the batch until the last one leaves.
    """

    device_type = None  # any
    options: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, model: MultiExitModel, impl: Impl) -> None:
        self._batches = Batches(model, impl)

    def run(self, plan: Plan, inputs: ModelInputs, stats: RuntimeStats | None = None) -> ExitState:
        """The embeddings and all layers that somebody needs.

        Args:
            plan: the policy's plan for this model.
            inputs: what the model is called with.
            stats: gets one entry, if given.

        Raises:
            ValueError: inputs that the backbone cannot take.
        """
        batch = self._batches.start(plan, inputs)
        samples = len(batch.hidden)
        if not samples:
            return batch.state
        asked = 0
        for stage in plan.stages:
            batch.run(stage)
            asked += 1
            if not batch.state.running[stage.exit - 1].item():
                break
        if stats is not None:
            stats.add(CallStats(samples, stage.layers.stop - 1, 0, asked, asked, 0))
        return batch.state
