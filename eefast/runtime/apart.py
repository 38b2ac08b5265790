"""`parts`: the layers and exit steps of a call, each on its own, to be timed."""

from __future__ import annotations

import copy
from functools import partial

import torch

from eefast.backbones import Inputs
from eefast.measure.pieces import Parts
from eefast.measure.timing import Call
from eefast.runtime.batch import Batches
from eefast.runtime.compiled import CompiledModel
from eefast.runtime.plan import Stage


@torch.inference_mode()
def parts(fast: CompiledModel, inputs: Inputs) -> Parts:
    """Take a call of a compiled model apart, for `eefast.measure.profile`.

    A layer's call computes that layer for all samples. An exit's call computes head and decision as
    the policy in force asks for, for samples none of which has exited before.

    Args:
        fast: from `eefast.compile`, with a policy that decides at every exit.
        inputs: what the model is called with.

    Raises:
        ValueError: a policy that does not compute every exit, or inputs that the model cannot take.
        RuntimeError: the model behind it, or a part of it, is in training mode.
    """
    fast._must_not_train()
    plan, backbone = fast._plan, fast.backbone
    if len(plan.stages) != len(fast.config.exits):
        raise ValueError(
            f"policy {plan.policy.name!r} computes {len(plan.stages)} of {len(fast.config.exits)} "
            "exits; to time them all, take one that decides at each, such as 'confidence'"
        )
    batch = Batches(backbone, fast.model.num_classes, fast.impl).open(plan, inputs)
    batch.start(inputs)

    def layer(index: int, hidden: torch.Tensor) -> Call:
        return partial(backbone.layer, index, hidden, batch.context)

    def exit(stage: Stage, hidden: torch.Tensor) -> Call:
        fresh = copy.copy(batch)
        fresh.hidden = hidden
        fresh.state = plan.state(batch.size, fast.model.num_classes, batch.state.score.device)
        return partial(fresh.run, stage)

    layers, exits = [], []
    for stage in plan.stages:
        for index in stage.layers:
            layers.append(partial(layer, index, batch.hidden))
            batch.hidden = backbone.layer(index, batch.hidden, batch.context)
        behind = stage._replace(layers=range(stage.layers.stop, stage.layers.stop))
        exits.append(partial(exit, behind, batch.hidden))
    return Parts(backbone.device, tuple(layers), tuple(exits))
