"""`Costs`: what layers and exit steps cost, in a unit of your choice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from eefast.files import write_whole
from eefast.measure import flops
from eefast.policies import Policy
from eefast.policies.values import number

if TYPE_CHECKING:
    from eefast.multi_exit import MultiExitModel
    from eefast.traces import Simulation


@dataclass(frozen=True)
class Costs:
    """Cost of each layer and of each exit step: counts, FLOPs, or measured milliseconds.

    Args:
        layers: of each layer up to the last exit's, 0 or more.
        exits: of each exit step (head and decision), 0 or more; (): they cost nothing.
        unit: what the numbers count, such as "layers", "FLOPs" or "ms".

    Raises:
        ValueError: something else than such numbers, or a unit that is no text.
    """

    layers: tuple[float, ...]
    exits: tuple[float, ...] = ()
    unit: str = "layers"

    def __post_init__(self) -> None:
        for name in ("layers", "exits"):
            values = getattr(self, name)
            if not isinstance(values, Sequence) or isinstance(values, str):
                raise ValueError(f"costs: {name} must be a list of numbers, got {values!r}")
            values = tuple(number("costs", name, value, 0) for value in values)
            object.__setattr__(self, name, values)
        if not isinstance(self.unit, str):
            raise ValueError(f"costs: unit must be a text, got {self.unit!r}")

    def of_leaving(self, policy: Policy, exit_layers: Sequence[int]) -> Tensor:
        """Cost of a sample that leaves at each exit, [L] float64: layers and exit steps up to it.

        Only the exit steps that the policy computes count. A policy by similarity (MuE) computes
        one head, the last, wherever a sample leaves; comparing two vectors counts as nothing. Nor
        do heads that are computed only because others in a cascade read them.

        Args:
            policy: says which exits are computed (`Policy.exits_used`).
            exit_layers: the 1-based layer of each exit.

        Raises:
            ValueError: costs of another number of layers or exits.
        """
        exits = len(exit_layers)
        if len(self.layers) != exit_layers[-1] or len(self.exits) not in (0, exits):
            raise ValueError(
                f"costs must hold {exit_layers[-1]} layers and {exits} exits (or none), got "
                f"{len(self.layers)} and {len(self.exits)}"
            )
        f64, cpu = torch.float64, "cpu"
        layers = torch.tensor(self.layers, dtype=f64, device=cpu).cumsum(0)
        steps = torch.zeros(exits, dtype=f64, device=cpu)
        if self.exits and policy.recurrence.by_similarity:
            steps[0] = self.exits[-1]
        elif self.exits:
            for exit in policy.exits_used(exits):
                steps[exit - 1] = self.exits[exit - 1]
        return layers[[layer - 1 for layer in exit_layers]] + steps.cumsum(0)

    def per_sample(self, policy: Policy, outcome: Simulation) -> float:
        """What a sample costs on average, where `outcome` is what simulating the policy gave.

        Raises:
            ValueError: costs of another number of layers or exits.
        """
        leaving = self.of_leaving(policy, outcome.exit_layers)
        counts = outcome.exit_histogram.to("cpu", torch.float64)
        return (counts @ leaving / counts.sum()).item()

    @classmethod
    def flops(cls, model: MultiExitModel, length: int) -> Costs:
        """FLOPs of a sample of `length` tokens (see `eefast.measure.flops`): matrix products.

        Raises:
            TypeError: the model takes no `input_ids`.
            ValueError: a length that it cannot take.
        """
        if length < 1:
            raise ValueError(f"length must be 1 or more, got {length}")
        layers, exits = flops(model, model.layers.padding_only(1, length))
        return cls(tuple(layers), tuple(exits), "FLOPs")

    def save(self, path: str | Path) -> None:
        """Write the costs to a JSON file, whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        write_whole(path, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Costs:
        """Read costs that `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file holds something else.
        """
        try:
            described: Any = json.loads(Path(path).read_text())
            return cls(**described)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} holds no costs: {error}") from None
