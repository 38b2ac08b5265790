"""`PackedStages`: layers and exits of a call in one op, on the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from eefast.backbones import Inputs
from eefast.lowering import PackedBackbone, PackedReadout
from eefast.ops import ExitState, Impl, implementation, is_cpp
from eefast.runtime.batch import started
from eefast.runtime.plan import Plan, Stage


class PackedStages:
    """The stages of a plan, run by `packed_stages` (csrc/cpu/layers/stage_ops.cpp).

    Samples of different lengths lie one behind the other, without padding. Those that exit are
    evicted when that pays.
    """

    def __init__(
        self, backbone: PackedBackbone, readout: PackedReadout, stages: Sequence[Stage]
    ) -> None:
        self._backbone = backbone
        self._readout = readout
        blocks = [backbone.layers.blocks(stage.layers) for stage in stages]
        heads = [(*stage.head, stage.scorer) for stage in stages]
        self._blocks = [block for of_stage in blocks for block in of_stage]
        self._counts = [len(of_stage) for of_stage in blocks]
        self._heads = [part for head in heads for part in head if part is not None]
        self._given = [
            sum((part is not None) << i for i, part in enumerate(head)) for head in heads
        ]
        self._steps = [stage.step for stage in stages]

    def run(self, inputs: Inputs, table: Tensor, state: ExitState) -> tuple[int, int]:
        """Answer all samples, at least one: how many stages ran, and how often rows were evicted.

        Raises:
            ValueError: ids that the model has no embedding of.
        """
        backbone, readout = self._backbone, self._readout
        batch = started(backbone, backbone.start_ragged, inputs)
        operands = batch.operands
        score, prediction, exit_layer, logits, running, votes, memory, _ = state
        done, evictions = torch.ops.eefast.packed_stages.default(
            batch.hidden,
            batch.lengths,
            batch.tokens,
            self._blocks,
            self._counts,
            operands.mask,
            operands.bias,
            operands.tables,
            operands.outside,
            readout.mean,
            readout.weight,
            readout.bias,
            readout.eps,
            self._heads,
            self._given,
            self._steps,
            table,
            score,
            prediction,
            exit_layer,
            logits,
            running,
            votes,
            memory,
        )
        return int(done), int(evictions)


class PackedPlans:
    """Makes `PackedStages` of plans, where the op has all that a plan needs.

    Args:
        backbone: as it is now; parts of it that are replaced later are not seen.
        num_classes: C.
        impl: of the exit step.
    """

    def __init__(self, backbone: PackedBackbone, num_classes: int, impl: Impl) -> None:
        self._backbone = backbone
        op = implementation(impl, backbone.device, backbone.dtype, rows=1, classes=num_classes)
        self._readout = backbone.ragged_readout() if is_cpp(op) else None
        self._latest: tuple[Plan | None, PackedStages | None] = None, None

    def of(self, plan: Plan) -> PackedStages | None:
        """The stages of a plan; None: they must run one by one."""
        of_plan, packed = self._latest
        if of_plan is not plan:
            packed = self._packed(plan)
            self._latest = plan, packed  # at once: other threads read it
        return packed

    def _packed(self, plan: Plan) -> PackedStages | None:
        read_by_others = any(stage.read for stage in plan.stages)
        if self._readout is None or plan.by_similarity or read_by_others:
            return None
        return PackedStages(self._backbone, self._readout, plan.stages)
