"""`CapturedCall`: the calls of one shape, captured."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Literal

import torch

from eefast.backbones import Inputs
from eefast.ops import ExitState, PackedState, sets_conditionals
from eefast.runtime.batch import Batches
from eefast.runtime.graph.capturable import Capturable, not_capturable
from eefast.runtime.graph.device import GraphDevice
from eefast.runtime.graph.static_inputs import StaticInputs
from eefast.runtime.plan import Plan, Stage

Nodes = Literal["nested", "flat"]
"""Where the IF node of a stage stands: inside that of the stage before, or after it."""


class CapturedCall:
    """Everything that a call of one shape does on the device, recorded once.

        start the state, embed, stage 1
        IF a sample runs after exit 1: stage 2
            IF a sample runs after exit 2: stage 3
                ...

    It reads its own buffers, the policy table among them, and its results are copied out of its
    state, so that later calls do not change what a call returned. The layers' weights are read in
    place: a change in place takes effect, a replacement does not. Autocast is off.

    Args:
        device: records and replays.
        batches: opens the batch that is recorded.
        plan: its stages are recorded; its table is not.
        samples, classes: N, C.
        inputs: buffers, already holding inputs that the warm-up can run on.
        nodes: see `Nodes`.

    Raises:
        RuntimeError: something in the layers cannot be captured; the message says what.
        torch.OutOfMemoryError: no room for it.
    """

    def __init__(
        self,
        device: GraphDevice,
        batches: Batches,
        plan: Plan,
        samples: int,
        classes: int,
        inputs: StaticInputs,
        nodes: Nodes,
    ) -> None:
        self._batches = batches
        self._plan = plan
        self._inputs = inputs
        self._nested = nodes == "nested"
        self._table = plan.table.clone()
        self._state = PackedState(
            samples, classes, len(plan.table), self._table.device, plan.votes, plan.memory
        )
        self._place = ""  # where in the model the current work belongs
        self._capture = device.capture()
        try:
            with device.warming_up():
                with Capturable(lambda: self._place):
                    self._issue(None)
                self._issue(None)  # compiled layers compile only where no mode watches
            try:
                with self._capture.recording():
                    self._issue(self._node)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                raise not_capturable(self._place, str(error)) from error
        except BaseException:
            self._capture.close()
            raise

    def run(self, plan: Plan, inputs: Inputs, length: int | None) -> tuple[ExitState, int]:
        """Enqueue one call. Returns its results, which the device may still be working on, and the
        number of launches that it took.

        Args:
            plan: of the stages recorded; its table is the one in force.
            inputs: of the forms recorded, and of `length` tokens.
            length: up to the recorded one; None: without padding.
        """
        with self._capture.turn():
            copies = self._inputs.write(inputs, length)
            self._table.copy_(plan.table)
            self._capture.replay()
            return self._state.copy(), copies + 3

    @property
    def reserved_bytes(self) -> int:
        """Device memory of the recorded work; the buffers are small beside it."""
        return self._capture.reserved_bytes

    def close(self) -> None:
        """Wait for the last call and give the memory back."""
        self._capture.close()

    def _issue(self, node: Callable[[Stage], AbstractContextManager[None]] | None) -> None:
        """The whole model, all stages; with `node`, each but the first inside a node."""
        # The recording is used by every call, so it must not depend on the context of the first
        # one, or on temporary copies of weights that autocast keeps.
        with torch.autocast(self._table.device.type, enabled=False):
            self._issue_all(node)

    def _issue_all(self, node: Callable[[Stage], AbstractContextManager[None]] | None) -> None:
        self._place = "the embeddings"
        self._state.start()
        stages = self._plan.stages
        batch = self._batches.of(self._plan, self._table, self._state.state)
        self._tells = sets_conditionals(batch.op)
        batch.start(self._inputs.tensors)
        with ExitStack() as nodes:
            for before, stage in zip((None, *stages), stages, strict=False):
                self._place = f"layers {stage.layers.start} to {stage.layers.stop - 1}"
                if before is not None and node is not None:
                    if not self._nested:
                        nodes.close()
                    nodes.enter_context(node(before))
                batch.run(stage)
        self._place = "the answers"
        batch.finish()

    def _node(self, before: Stage) -> AbstractContextManager[None]:
        """The node of what is to be done if a sample runs after a stage."""
        state, row = self._state.state, before.exit - 1
        handle = None
        if state.control is not None and self._tells:
            handle = state.control[row, 1]
        return self._capture.only_if(state.running[row], handle)
