"""`Batch`: the rows of one call on their way through layers and exits, on any device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

from eefast.backbones import Backbone, Context, Inputs, embedded
from eefast.ops import (
    ExitState,
    Gain,
    HeadWeights,
    Impl,
    Keep,
    SimilarityState,
    Step,
    implementation,
)
from eefast.runtime.plan import Plan, Read, Stage

_ANSWER = Step(1, 1, Keep.NEVER, Gain.ONE).pack()


@dataclass(slots=True)
class Batch:
    """The rows of one call: their hidden states, and the state that the exits write.

    Its methods are the work of a call, to be done in order by whoever drives it: `start`, then
    `run` for each stage, with `keep` in between, and `finish`. They read nothing back from the
    device.
    """

    backbone: Backbone
    exit_step_for: Callable[[int], Callable[..., None]]  # the op for so many rows
    table: Tensor  # (L, 3) float32; this call's own
    state: ExitState  # of all N samples
    size: int  # R, N at first
    rows: Tensor | None = None  # (R,) int64: the sample of each row; None: row n is sample n
    hidden: Tensor = field(init=False)  # of the R rows, after the layers run so far
    context: Context = field(init=False)  # of the R rows

    def start(self, inputs: Inputs) -> None:
        """What comes before layer 1.

        Raises:
            ValueError: on the CPU, ids that the model has no embedding of.
        """
        self.hidden, self.context = started(self.backbone, self.backbone.start, inputs)

    def run(self, stage: Stage) -> None:
        """The layers of a stage and the exit after them."""
        backbone, hidden, context = self.backbone, self.hidden, self.context
        layers = stage.layers
        for layer, read in stage.read.items():
            hidden = backbone.run(range(layers.start, layer + 1), hidden, context)
            self._leave(read, *backbone.readout(layer, hidden, context))
            layers = range(layer + 1, layers.stop)
        self.hidden = hidden = backbone.run(layers, hidden, context)
        vectors, offsets = backbone.readout(layers.stop - 1, hidden, context)
        self._decide(stage, vectors, offsets)

    def _leave(self, read: Read, vectors: Tensor, offsets: Tensor | None) -> None:
        """An exit's logits, for the next to read; all else that its step writes is put aside."""
        aside = self.state._replace(
            score=torch.zeros_like(self.state.score),
            prediction=torch.zeros_like(self.state.prediction),
            votes=None,
            memory=None,
        )
        self.op(vectors, offsets, *read.head, None, read.table, self.rows, read.step, *aside)

    def _decide(self, stage: Stage, vectors: Tensor, offsets: Tensor | None) -> None:
        self.op(
            vectors,
            offsets,
            *stage.head,
            stage.scorer,
            self.table,
            self.rows,
            stage.step,
            *self.state,
        )

    @property
    def op(self) -> Callable[..., None]:
        """The op that decides."""
        return self.exit_step_for(self.size)

    def keep(
        self,
        index: Tensor,  # (K,) int64: rows to keep
        rows: Tensor,  # (K,) int64: their samples
    ) -> None:
        """Evict all other rows."""
        self.hidden = self.hidden.index_select(0, index)
        self.context = self.context.select(index)
        self.rows = rows
        self.size = len(rows)

    def finish(self) -> None:
        """What comes after the last sample's exit; here nothing is left to do."""


@dataclass(slots=True, kw_only=True)
class SimilarityBatch(Batch):
    """A batch whose hidden vectors decide: no head is computed until all samples have exited."""

    similarity_step: Callable[..., None]  # the op
    head: HeadWeights  # answers all samples
    similarity: SimilarityState = field(init=False)

    def start(self, inputs: Inputs) -> None:
        """As any batch; the embeddings are what layer 1 is compared with.

        Raises:
            ValueError: also, embeddings of another width than layer 1 gives.
        """
        Batch.start(self, inputs)
        vectors, state = embedded(self.backbone, self.hidden, self.context), self.state
        self.similarity = SimilarityState(
            vectors.to(torch.float32, copy=True, memory_format=torch.contiguous_format),
            state.score,  # what decisions write is the result's already
            state.exit_layer,
            state.running,
        )

    def _decide(self, stage: Stage, vectors: Tensor, offsets: Tensor | None) -> None:
        self.op(vectors, offsets, self.table, self.rows, stage.step, *self.similarity)

    @property
    def op(self) -> Callable[..., None]:
        """The op that decides."""
        return self.similarity_step

    def finish(self) -> None:
        """The head's answers, from the vector that each sample exited with."""
        state, vectors = self.state, self.similarity.previous
        # Nothing has exited from this one exit yet; answers go where the result is.
        answer = state._replace(
            score=torch.zeros_like(state.score),
            exit_layer=torch.zeros_like(state.exit_layer),
            running=state.running[:1],
            control=None if state.control is None else state.control[:1],
        )
        self.exit_step_for(len(vectors))(
            vectors.to(self.head.weight.dtype),
            None,
            *self.head,
            None,
            self.table[:1],
            None,
            _ANSWER,
            *answer,
        )


class Batches:
    """Opens the batches of a backbone, whose exit step may depend on the number of rows.

    Raises:
        ValueError, TypeError, RuntimeError: as `eefast.ops.implementation`.
    """

    def __init__(self, backbone: Backbone, num_classes: int, impl: Impl) -> None:
        device, dtype = backbone.device, backbone.dtype
        implementation(impl, device, dtype, classes=num_classes)  # a misfit is refused now
        self._backbone = backbone
        self._num_classes = num_classes
        self._on = device
        self._device = "cpu" if device.type == "cpu" else device
        self._exit_step_for = cache(
            lambda rows: implementation(impl, device, dtype, rows=rows, classes=num_classes)
        )
        self._similarity_step = cache(
            lambda: implementation(impl, device, dtype, op="similarity_step")
        )

    def open(self, plan: Plan, inputs: Inputs) -> Batch:
        """A batch that has not been started, with a copy of the policy table as it is now.

        Raises:
            ValueError: as `begin` and `of`.
        """
        return self.of(plan, *self.begin(plan, inputs))

    def begin(self, plan: Plan, inputs: Inputs) -> tuple[Tensor, ExitState]:
        """A copy of the policy table as it is now, and the state before the first exit.

        Raises:
            ValueError: inputs that the backbone cannot take or that are on another device, or more
                rows than the implementation asked for takes.
        """
        samples, _ = self._backbone.check(inputs)
        check_devices(inputs, self._on)
        self._exit_step_for(samples)  # at the door, not after the first layers
        # Before the layers, which fill the caches: after them it costs half as much again.
        return plan.begin(samples, self._num_classes, self._device)

    def of(self, plan: Plan, table: Tensor, state: ExitState) -> Batch:
        """A batch that has not been started, for a plan's stages, with a table and a state.

        Raises:
            ValueError: the implementation asked for has no similarity step, and the plan needs it.
        """
        common = self._backbone, self._exit_step_for, table, state, len(state.score)
        if not plan.by_similarity:
            return Batch(*common)
        return SimilarityBatch(
            *common, similarity_step=self._similarity_step(), head=plan.stages[-1].head
        )


_Started = TypeVar("_Started")


def started(backbone: Backbone, start: Callable[[Inputs], _Started], inputs: Inputs) -> _Started:
    """What a backbone's `start` gives.

    Raises:
        ValueError: on the CPU, ids that the model has no embedding of.
    """
    try:
        return start(inputs)
    except (IndexError, RuntimeError):
        backbone.check_ids(inputs)
        raise


def check_devices(inputs: Inputs, device: torch.device) -> None:
    """Raise ValueError unless all inputs are on the model's device."""
    for name, tensor in inputs.items():
        if tensor.device != device:
            raise ValueError(f"{name}: got device {tensor.device}; wanted {device}, the model's")
