"""`Plan`: a policy made ready for one model, so that a call only has to walk its steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from eefast.ops import ExitState, Gain, HeadWeights, Step
from eefast.policies import Policy


class Stage(NamedTuple):
    """Layers that run without a decision, and the exit after them that the policy uses."""

    layers: range  # 1-based
    exit: int  # 1-based
    head: HeadWeights
    scorer: Tensor | None  # the network of a policy that has one, on the device of the head
    step: int  # Step.pack()


@dataclass(frozen=True)
class Plan:
    """What a runtime needs of a policy. Immutable: a new policy is a new plan, so that a
    running call of another thread keeps the plan it began with."""

    policy: Policy
    table: Tensor  # (exits up to the last one used, 3) float32, on the model's device
    stages: tuple[Stage, ...]  # up to the last exit used; the layers after it are never run
    votes: bool = False  # whether the state needs them
    memory: bool = False
    similarity: bool = False  # whether hidden vectors decide, and the last stage's head answers all

    @classmethod
    @torch.inference_mode(False)  # the table must stay writable wherever a policy is assigned
    def make(
        cls,
        policy: Policy,
        exits: Sequence[int],
        heads: Sequence[HeadWeights],
        num_classes: int,
        device: torch.device,
    ) -> Plan:
        """The plan of a policy for a model.

        Args:
            policy: says which exits are used, and how they decide.
            exits: the 1-based layers after which an exit stands, ascending.
            heads: of each exit.
            num_classes: C.
            device: of the heads and the layers.

        Raises:
            ValueError: the policy does not fit the model (see `Policy.check`).
        """
        policy.check(len(exits), num_classes)
        recurrence = policy.recurrence
        used = policy.exits_used(len(exits))
        # Cut behind the last exit used, the table ends where every sample must have exited.
        table = policy.table(len(exits))[: used[-1]].to(device)
        layers = [exits[exit - 1] for exit in used]
        # The similarity step knows no other kinds, and needs none.
        similarity = recurrence.by_similarity
        kinds = recurrence._replace(gain=Gain.ONE) if similarity else recurrence
        return cls(
            policy=policy,
            table=table.contiguous(),
            stages=tuple(
                Stage(
                    range(before + 1, layer + 1),
                    exit,
                    heads[exit - 1],
                    _on(device, policy.scorer_weights(exit)),
                    Step(exit, layer, *kinds).pack(),
                )
                for exit, layer, before in zip(used, layers, [0, *layers], strict=False)
            ),
            votes=recurrence.uses_votes,
            memory=recurrence.needs_memory,
            similarity=similarity,
        )

    def state(self, samples: int, num_classes: int, device: torch.device | str) -> ExitState:
        """The state of so many samples before the first exit."""
        return ExitState.start(
            samples, num_classes, len(self.table), device, self.votes, self.memory
        )


def _on(device: torch.device, weights: Tensor | None) -> Tensor | None:
    if weights is None:
        return None
    return weights.to(device, torch.float32).contiguous()
