"""`Batch`: the rows of one call on their way through layers and exits, on any device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from torch import Tensor

from eefast.backbones import Backbone, LayerInputs, ModelInputs
from eefast.multi_exit import MultiExitModel
from eefast.ops import ExitState, Impl, implementation
from eefast.runtime.plan import Plan, Stage


@dataclass(slots=True)
class Batch:
    """The rows of one call: their hidden states, and the state that the exits write.

    Its methods are the work of a call, to be done in order by whoever drives it. They read nothing
    back from the device.
    """

    backbone: Backbone
    exit_step_for: Callable[[int], Callable[..., None]]  # the op for so many rows
    table: Tensor  # (L, 3) float32
    state: ExitState  # of all N samples
    hidden: Tensor  # (R, T, D), after the layers run so far
    inputs: LayerInputs  # of the R rows
    rows: Tensor | None = None  # (R,) int64: the sample of each row; None: row n is sample n

    def run(self, stage: Stage) -> None:
        """The layers of a stage and the exit behind them."""
        hidden, inputs = self.hidden, self.inputs
        for layer in stage.layers:
            hidden = self.backbone.layer(layer, hidden, inputs)
        self.hidden = hidden
        readout, exit_step = self.backbone.for_exit_step(hidden), self.exit_step_for(len(hidden))
        exit_step(readout, None, *stage.head, None, self.table, self.rows, stage.step, *self.state)

    def keep(
        self,
        index: Tensor,  # (K,) int64: rows to keep
        rows: Tensor,  # (K,) int64: their samples
    ) -> None:
        """Drop all other rows."""
        self.hidden = self.hidden.index_select(0, index)
        self.inputs = self.inputs.select(index)
        self.rows = rows


class Batches:
    """Starts the batches of one model, whose exit step may depend on the number of rows.

    Raises:
        ValueError, TypeError, RuntimeError: as `eefast.ops.implementation`.
    """

    def __init__(self, model: MultiExitModel, impl: Impl) -> None:
        device, dtype, classes = model.device, model.dtype, model.num_classes
        implementation(impl, device, dtype, classes=classes)  # a misfit is refused now
        self._backbone = model.adapter
        self._num_classes = classes
        self._exit_step_for = cache(
            lambda rows: implementation(impl, device, dtype, rows=rows, classes=classes)
        )

    def start(self, plan: Plan, inputs: ModelInputs) -> Batch:
        """A batch before layer 1.

        Raises:
            ValueError: inputs that the backbone cannot take, or more rows than the implementation
                asked for takes.
        """
        hidden, layer_inputs = self._backbone.embed(*inputs)
        self._exit_step_for(len(hidden))  # at the door, not behind the first layers
        device = "cpu" if hidden.is_cpu else hidden.device
        state = ExitState.start(len(hidden), self._num_classes, len(plan.table), device)
        return Batch(self._backbone, self._exit_step_for, plan.table, state, hidden, layer_inputs)
