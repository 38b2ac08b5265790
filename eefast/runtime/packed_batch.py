"""`PackedBatch`: layers and exits of a call in one op, on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eefast.lowering import PackedBackbone, PackedContext, PackedLayers
from eefast.ops import ExitState, Impl, is_cpp
from eefast.runtime.batch import Batch, Batches
from eefast.runtime.plan import Plan, Stage


class PackedStages:
    """The stages of a plan as `packed_stages` takes them (csrc/cpu/layers/stage_ops.cpp)."""

    def __init__(self, stages: Sequence[Stage], layers: PackedLayers) -> None:
        self._stages = stages
        self._layers = layers
        self._from: dict[int, _Arguments] = {}

    def from_stage(self, first: int) -> _Arguments:
        """The stages `first`, `first` + 1, ..."""
        found = self._from.get(first)
        if found is None:
            found = self._from[first] = self._arguments(self._stages[first:])
        return found

    def _arguments(self, stages: Sequence[Stage]) -> _Arguments:
        blocks = [self._layers.blocks(stage.layers) for stage in stages]
        heads = [(*stage.head, stage.scorer) for stage in stages]
        return _Arguments(
            [block for of_stage in blocks for block in of_stage],
            [len(of_stage) for of_stage in blocks],
            [part for head in heads for part in head if part is not None],
            [sum((part is not None) << i for i, part in enumerate(head)) for head in heads],
            [stage.step for stage in stages],
        )


@dataclass(frozen=True, slots=True)
class _Arguments:
    blocks: list[Tensor]
    counts: list[int]  # of the blocks of each stage
    heads: list[Tensor]  # of all stages, one after the other
    given: list[int]  # which parts of a head there are, as bits
    steps: list[int]


@dataclass(slots=True, kw_only=True)
class PackedBatch(Batch):
    """A batch whose backbone is packed and whose exits read the first token."""

    packed: PackedStages

    def run_some(self, stages: Sequence[Stage], first: int) -> int:
        """As `Batch.run_some`: all that follow, until a sample exits."""
        what, context = self.packed.from_stage(first), self.context
        assert isinstance(context, PackedContext)
        operands = context.operands
        score, prediction, exit_layer, logits, running, votes, memory, _ = self.state
        self.hidden, ran = torch.ops.eefast.packed_stages.default(
            self.hidden,
            what.blocks,
            what.counts,
            operands.mask,
            operands.bias,
            operands.tables,
            operands.outside,
            what.heads,
            what.given,
            what.steps,
            self.table,
            self.rows,
            score,
            prediction,
            exit_layer,
            logits,
            running,
            votes,
            memory,
        )
        return int(ran)


class PackedBatches(Batches):
    """Opens a `PackedBatch` wherever its op has all that a plan needs, and else a `Batch`.

    Raises:
        ValueError, TypeError, RuntimeError: as `Batches`.
    """

    def __init__(self, backbone: PackedBackbone, num_classes: int, impl: Impl) -> None:
        super().__init__(backbone, num_classes, impl)
        self._layers = backbone.layers
        self._able = backbone.reads_first_token and is_cpp(self._exit_step_for(1))
        self._latest: tuple[Plan | None, PackedStages | None] = None, None

    def of(self, plan: Plan, table: Tensor, state: ExitState) -> Batch:
        """See `Batches.of`."""
        of_plan, packed = self._latest
        if of_plan is not plan:
            packed = self._packed(plan)
            self._latest = plan, packed  # at once: other threads read it
        if packed is None:
            return super().of(plan, table, state)
        samples = len(state.score)
        return PackedBatch(
            self._backbone, self._exit_step_for, table, state, samples, packed=packed
        )

    def _packed(self, plan: Plan) -> PackedStages | None:
        read_by_others = any(stage.read for stage in plan.stages)
        if not self._able or plan.by_similarity or read_by_others:
            return None
        return PackedStages(plan.stages, self._layers)
