"""`Plan`: a policy made ready for one model, so that a call only has to walk its steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from eefast.multi_exit import MultiExitModel
from eefast.ops import HeadWeights
from eefast.policies import Policy


@dataclass(frozen=True)
class Step:
    """One exit that the policy looks at."""

    exit: int  # 1-based
    head: HeadWeights


@dataclass(frozen=True)
class Plan:
    """What a runtime needs of a policy. Immutable: a new policy is a new plan, swapped whole, so
    that a call under way in another thread keeps the one it began with."""

    policy: Policy
    table: Tensor  # (exits up to the last one used, 3) float32, on the model's device
    keep: int
    gain: int
    strict: bool
    steps: Mapping[int, Step]  # by layer
    last_layer: int  # of the last exit used; the layers behind it are never run

    @classmethod
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
            keep=int(policy.keep),
            gain=int(policy.gain),
            strict=policy.strict,
            steps={layers[exit - 1]: Step(exit, model.heads.weights(exit)) for exit in used},
            last_layer=layers[used[-1] - 1],
        )
