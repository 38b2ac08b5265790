"""The direct runtime, for the CPU: each decision is read as soon as it is made.

On the CPU there is nothing to wait for: when the exit step returns, its result lies in memory.
Reading it through a numpy view costs 50 ns, where a tensor's `.item()` costs ten times that.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from eefast.backbones import ModelInputs, without_idle_mask
from eefast.multi_exit import MultiExitModel
from eefast.ops import ExitState, Impl, implementation
from eefast.runtime.plan import Plan
from eefast.runtime.stats import CallStats, RuntimeStats

ROWS_COPIED_PER_LAYER_ROW = 64
"""How many rows of hidden states can be copied in the time in which a layer computes one row.

Copying a row moves 2 T D numbers; a layer makes 12 T D^2 multiplications of it. Measured on two
cores of a server processor, fp32, D from 384 to 768 and T from 16 to 64: 280 to 1600 times. This is
well on the safe side of that, so that a row is never copied for less than it saves.
"""


class DirectRuntime:
    """Drives layers and exit steps on the CPU, for batches of any size.

    Rows whose sample has left are dropped from the batch (hidden states, mask, positions) when
    that pays: when copying the rows that stay costs less than computing the rows that left in one
    more layer. The policy's state is never moved: the exit step finds each row's sample by
    number, so results are in the caller's order throughout.
    """

    device_type = "cpu"
    options: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, model: MultiExitModel, impl: Impl) -> None:
        self._backbone = model.adapter
        self._num_classes = model.num_classes
        self._exit_step = implementation(impl, self.device_type, model.dtype)

    def run(self, plan: Plan, inputs: ModelInputs, stats: RuntimeStats | None = None) -> ExitState:
        """The embeddings and all layers that somebody needs.

        Args:
            plan: the policy's plan for this model.
            inputs: what the model is called with.
            stats: gets one entry, if given.

        Raises:
            ValueError: inputs that the backbone cannot take.
        """
        samples, _ = self._backbone.check(inputs)
        # Before the layers have emptied the caches: there it costs half as much again.
        state = ExitState.start(samples, self._num_classes, len(plan.table))
        if not samples:
            return state
        hidden, layer_inputs = self._backbone.embed_unchecked(without_idle_mask(inputs))
        rows: Tensor | None = None
        regroupings = 0
        run_layer, last = self._backbone.layer, plan.stages[-1]
        for stage in plan.stages:
            for layer in stage.layers:
                hidden = run_layer(layer, hidden, layer_inputs)
            readout = self._backbone.for_exit_step(hidden)
            self._exit_step(readout, None, *stage.head, None, plan.table, rows, stage.step, *state)
            if stage is last or not state.running.numpy()[stage.exit - 1]:
                break
            if samples > 1:
                exit_layer = state.exit_layer.numpy()
                of_rows = exit_layer if rows is None else exit_layer[rows.numpy()]
                stay = np.flatnonzero(of_rows == 0)
                if _regrouping_pays(len(hidden), len(stay)):
                    index = torch.from_numpy(stay)
                    hidden = hidden.index_select(0, index)
                    layer_inputs = layer_inputs.select(index)
                    rows = index if rows is None else rows[index]
                    regroupings += 1
        if stats is not None:
            exit_steps = sum(met.exit <= stage.exit for met in plan.stages)
            stats.add(CallStats(samples, stage.layers.stop - 1, 0, exit_steps, 0, regroupings))
        return state


def _regrouping_pays(rows: int, stay: int) -> bool:
    return stay < (rows - stay) * ROWS_COPIED_PER_LAYER_ROW
