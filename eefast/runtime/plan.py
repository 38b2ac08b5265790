"""`Plan`: a policy made ready for one model, so that a call only has to walk its steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from eefast.ops import (
    ExitState,
    Gain,
    HeadWeights,
    Keep,
    Recurrence,
    ScorerKind,
    Step,
    _native,
)
from eefast.policies import Policy


class Read(NamedTuple):
    """An exit that the policy does not use, and whose logits the head of the next exit reads."""

    head: HeadWeights
    table: Tensor  # as large as the plan's; no score reaches its thresholds
    step: int  # Step.pack()


class Stage(NamedTuple):
    """Layers that run without a decision, and the exit after them that the policy uses."""

    layers: range  # 1-based
    exit: int  # 1-based
    head: HeadWeights
    scorer: Tensor | None  # the network of a policy that has one, on the device of the head
    step: int  # Step.pack()
    read: Mapping[int, Read] = MappingProxyType({})  # by layer, ascending


@dataclass(frozen=True)
class Plan:
    """What a runtime needs of a policy. Immutable: a new policy is a new plan, so that a
    running call of another thread keeps the plan it began with."""

    policy: Policy
    table: Tensor  # (exits up to the last one used, 3) float32, on the model's device
    stages: tuple[Stage, ...]  # up to the last exit used; the layers after it are never run
    votes: bool = False  # whether the state needs them
    memory: bool = False
    by_similarity: bool = False  # hidden vectors decide, and the last stage's head answers all

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

        Exits that the policy does not use are not computed, except with heads in a cascade: an exit
        that is computed and whose head reads the one before has that computed too, and so on down
        to the first. Such an exit leaves its logits to be read, and decides nothing.

        Args:
            policy: says which exits are used, and how they decide.
            exits: the 1-based layers after which an exit stands, ascending.
            heads: of each exit.
            num_classes: C.
            device: of the heads and the layers.

        Raises:
            ValueError: the policy does not fit the model (see `Policy.check`), or with one output
                and a cascade it compares exits and leaves out one of them.
        """
        policy.check(len(exits), num_classes)
        recurrence = policy.recurrence
        used = policy.exits_used(len(exits))
        # Cut behind the last exit used, the table ends where every sample must have exited.
        table = policy.table(len(exits))[: used[-1]].to(device)
        layers = [exits[exit - 1] for exit in used]
        read = _only_read(heads, used, recurrence, table)
        if read and num_classes == 1 and recurrence.compares:
            raise ValueError(
                f"policy {policy.name!r} compares exits, and between those heads in a cascade read "
                f"others: with one output it must use all of them, got exits_used {list(used)}"
            )
        # The similarity step knows no other kinds, and needs none.
        by_similarity = recurrence.by_similarity
        kinds = recurrence._replace(gain=Gain.ONE) if by_similarity else recurrence
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
                    {exits[i - 1]: read[i] for i in sorted(read) if before < exits[i - 1] < layer},
                )
                for exit, layer, before in zip(used, layers, [0, *layers], strict=False)
            ),
            votes=recurrence.uses_votes,
            memory=recurrence.needs_memory,
            by_similarity=by_similarity,
        )

    def begin(
        self, samples: int, num_classes: int, device: torch.device | str
    ) -> tuple[Tensor, ExitState]:
        """What a call begins with: a copy of the table as it is now, and the first state."""
        if device == "cpu" and not self.votes and not self.memory and _native.AVAILABLE:
            # Six torch functions take 80 us longer when the caches are cold.
            table, *state = torch.ops.eefast.begin_call.default(samples, num_classes, self.table)
            return table, ExitState(*state)
        return self.table.clone(), self.state(samples, num_classes, device)

    def state(self, samples: int, num_classes: int, device: torch.device | str) -> ExitState:
        """The state of so many samples before the first exit."""
        return ExitState.start(
            samples, num_classes, len(self.table), device, self.votes, self.memory
        )


def _only_read(
    heads: Sequence[HeadWeights], used: Sequence[int], recurrence: Recurrence, table: Tensor
) -> dict[int, Read]:
    """The exits (1-based) that are not used, and that one which is computed reads."""
    out_of_reach = torch.tensor([[0.0, math.inf, 0.0]]).to(table).expand_as(table).contiguous()
    # A scorer that is a row of the head has to be named: it is no class.
    row = ScorerKind.ROW if recurrence.scorer is ScorerKind.ROW else ScorerKind.NONE
    kinds = Recurrence(Keep.NEVER, Gain.ONE, scorer=row)
    read: dict[int, Read] = {}
    for exit in range(used[-1], 1, -1):
        computed = exit in used or exit in read
        if computed and heads[exit - 1].cascade is not None and exit - 1 not in used:
            step = Step(exit - 1, 1, *kinds).pack()
            read[exit - 1] = Read(heads[exit - 2], out_of_reach, step)
    return read


def _on(device: torch.device, weights: Tensor | None) -> Tensor | None:
    if weights is None:
        return None
    return weights.to(device, torch.float32).contiguous()
