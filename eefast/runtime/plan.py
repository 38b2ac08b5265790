"""`Plan`: a policy made ready for one model, so that a call only has to walk its steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from eefast.multi_exit import MultiExitModel
from eefast.ops import HeadWeights, Step
from eefast.policies import Policy


class PlannedExit(NamedTuple):
    """One exit that the policy looks at."""

    exit: int  # 1-based
    head: HeadWeights
    step: int  # Step.pack()


@dataclass(frozen=True)
class Plan:
    """What a runtime needs of a policy. Immutable: a new policy is a new plan, swapped whole, so
    that a call under way in another thread keeps the one it began with."""

    policy: Policy
    table: Tensor  # (exits up to the last one used, 3) float32, on the model's device
    exits: Mapping[int, PlannedExit]  # by layer
    last_layer: int  # of the last exit used; the layers behind it are never run

    @classmethod
    @torch.inference_mode(False)  # the table must stay writable wherever a policy is assigned
    def make(cls, policy: Policy, model: MultiExitModel) -> Plan:
        """The plan of a policy for a model.

        Raises:
            ValueError: the policy does not fit the model (see `Policy.check`).
        """
        policy.check(model.num_exits, model.num_classes)
        used = policy.exits_used(model.num_exits)
        # Cut behind the last exit used, the table ends where everybody must have left.
        table = policy.table(model.num_exits)[: used[-1]].to(model.device)
        layers = model.config.exits
        return cls(
            policy=policy,
            table=table.contiguous(),
            exits={
                layer: PlannedExit(
                    exit,
                    model.heads.weights(exit),
                    Step(exit, layer, policy.keep, policy.gain, policy.strict).pack(),
                )
                for exit in used
                for layer in [layers[exit - 1]]
            },
            last_layer=layers[used[-1] - 1],
        )
