"""The direct runtime, for the CPU: each decision is read as soon as it is made.

On the CPU there is nothing to wait for: when the exit step returns, its result lies in memory.
Reading it through a numpy view costs 50 ns, where a tensor's `.item()` costs ten times that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch

from eefast.backbones import Backbone, Inputs
from eefast.lowering import PackedBackbone
from eefast.ops import ExitState, Impl
from eefast.runtime.batch import Batch, Batches
from eefast.runtime.packed_stages import PackedPlans
from eefast.runtime.plan import Plan, Stage
from eefast.runtime.stats import CallStats, RuntimeStats

ROWS_COPIED_PER_LAYER_ROW = 64
"""How many rows of hidden states can be copied in the time in which a layer computes one row.

Copying a row moves 2 T D numbers; a layer makes 12 T D^2 multiplications of it. Measured on two
cores of a server processor, fp32, D from 384 to 768 and T from 16 to 64: 280 to 1600 times. This is
well on the safe side of that, so that a copy never costs more than it saves.
"""


class DirectRuntime:
    """Drives layers and exit steps on the CPU, for batches of any size.

    Rows whose sample has exited are evicted from the batch when that pays: when copying the rows
    that stay costs less than computing the others in one more layer. The policy's state is never
    moved: the exit step finds each row's sample by number, so results are in the caller's order
    throughout.
    """

    device_type: ClassVar[str | None] = "cpu"
    options: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, backbone: Backbone, num_classes: int, impl: Impl) -> None:
        self._batches = Batches(backbone, num_classes, impl)
        self._packed = (
            PackedPlans(backbone, num_classes, impl)
            if isinstance(backbone, PackedBackbone)
            else None
        )

    def run(self, plan: Plan, inputs: Inputs, stats: RuntimeStats | None = None) -> ExitState:
        """See `Runtime.run`."""
        table, state = self._batches.begin(plan, inputs)
        samples = len(state.score)
        if not samples:
            return state
        packed = None if self._packed is None else self._packed.of(plan)
        if packed is not None:
            done, evictions = packed.run(inputs, table, state)
        else:
            batch = self._batches.of(plan, table, state)
            batch.start(inputs)
            done, evictions = _one_by_one(batch, plan.stages)
            batch.finish()
        if stats is not None:
            layers = plan.stages[done - 1].layers.stop - 1
            stats.add(CallStats(samples, layers, 0, done, 0, evictions))
        return state

    def close(self) -> None:
        """There is nothing to give up."""


def _one_by_one(batch: Batch, stages: Sequence[Stage]) -> tuple[int, int]:
    """How many stages ran until all samples had exited, and how often rows were evicted."""
    state, evictions = batch.state, 0
    for done, stage in enumerate(stages, 1):
        batch.run(stage)
        if done == len(stages) or not state.running.numpy()[stage.exit - 1]:
            break
        if len(state.score) > 1:
            exit_layer, rows = state.exit_layer.numpy(), batch.rows
            of_rows = exit_layer if rows is None else exit_layer[rows.numpy()]
            stay = np.flatnonzero(of_rows == 0)
            if _evicting_pays(batch.size, len(stay)):
                index = torch.from_numpy(stay)
                batch.keep(index, index if rows is None else rows[index])
                evictions += 1
    return done, evictions


def _evicting_pays(rows: int, stay: int) -> bool:
    return stay < (rows - stay) * ROWS_COPIED_PER_LAYER_ROW
