"""`Policy`: one row of the recurrence.

    S_0 = 0,    S_i = keep_i * S_(i-1) + w_i * gain_i,    leave at the first i with S_i >= alpha_i

(or S_i > alpha_i where the policy is `strict`); the last exit always answers. A policy is a frozen
dataclass that names its two kinds and fills three columns, nothing more: all implementations of
the exit step, the simulation and the runtimes then know it. A policy of your own:

    @dataclass(frozen=True)
    class ConfidentPatience(Policy):
        '''Leave after `patience` confident exits, all predicting the same without a break.'''

        name = "confident-patience"
        keep, gain = Keep.AGREE, Gain.CONFIDENCE_ABOVE
        patience: int = 2
        confidence: float = 0.9

        def columns(self, num_exits):
            return Columns(thresholds=self.patience, tau=self.confidence)
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor

from eefast.ops import Gain, Keep

Values = float | Sequence[float]
"""One number for every exit, or one number per exit."""

P = TypeVar("P", bound="Policy")
_REGISTRY: dict[str, type[Policy]] = {}


class Columns(NamedTuple):
    """The policy table before it is a tensor: a number for all exits, or one per exit."""

    weights: Values = 1.0
    thresholds: Values = math.inf
    tau: Values = 0.0


@dataclass(frozen=True)
class Policy(ABC):
    """A rule that says after which exit a sample leaves.

    Subclasses are frozen dataclasses, known by `name`. Calibration notes in `num_exits` and
    `num_classes` what the numbers were chosen for; a model or trace of another shape refuses them.
    """

    name: ClassVar[str]

    num_exits: int | None = dataclasses.field(default=None, kw_only=True)
    num_classes: int | None = dataclasses.field(default=None, kw_only=True)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not isinstance(getattr(cls, "name", None), str):
            raise TypeError(f"policy class {cls.__name__} needs a name: name = '...'")
        if "name" in cls.__dict__:
            known = _REGISTRY.get(cls.name)
            # The same class again is a notebook cell run twice.
            if known is not None and known.__qualname__ != cls.__qualname__:
                raise ValueError(f"there is a policy named {cls.name!r} already: {known.__name__}")
            _REGISTRY[cls.name] = cls

    @property
    @abstractmethod
    def keep(self) -> Keep:
        """What becomes of the score of the exits before; a plain class attribute will do."""

    @property
    @abstractmethod
    def gain(self) -> Gain:
        """What an exit adds to the score; a plain class attribute will do."""

    @property
    def strict(self) -> bool:
        """Whether a sample leaves at S > alpha rather than at S >= alpha."""
        return False

    @abstractmethod
    def columns(self, num_exits: int) -> Columns:
        """Weights, thresholds and tau for a model with `num_exits` exits."""

    def exits_used(self, num_exits: int) -> range:
        """The 1-based exits that the policy looks at; the others are not computed at all."""
        return range(1, num_exits + 1)

    @classmethod
    def default(cls: type[P], num_exits: int) -> P:
        """The setting of the policy's paper, for a model that was not calibrated.

        Raises:
            ValueError: the policy has no such setting; it must be made with numbers.
        """
        try:
            return cls()
        except TypeError as error:
            raise ValueError(f"policy {cls.name!r} has no default setting: {error}") from None

    @property
    def reads_signals(self) -> bool:
        """Whether the decision depends on the sample at all."""
        return self.keep not in (Keep.NEVER, Keep.ALWAYS) or self.gain is not Gain.ONE

    def table(self, num_exits: int) -> Tensor:
        """The policy table, [num_exits, 3] float32: weight, threshold and tau of every exit.

        Raises:
            ValueError: the policy holds numbers for another number of exits.
        """
        table = torch.empty(num_exits, 3, dtype=torch.float32, device="cpu")
        for i, (name, values) in enumerate(
            zip(Columns._fields, self.columns(num_exits), strict=True)
        ):
            column = torch.as_tensor(values, dtype=torch.float32, device="cpu")
            if column.dim() and list(column.shape) != [num_exits]:
                raise ValueError(
                    f"{self.name}: {name} has {column.numel()} values, "
                    f"the model has {num_exits} exits"
                )
            if column.isnan().any():
                raise ValueError(f"{self.name}: {name} must be numbers, got {values}")
            table[:, i] = column
        return table

    def check(self, num_exits: int, num_classes: int) -> None:
        """Refuse a model or trace that this policy cannot judge.

        Raises:
            ValueError: another number of exits or classes than the policy was calibrated for, or
                a single output (regression), of which no signal can be taken.
            TypeError: keep or gain is not of its kind.
        """
        if not isinstance(self.keep, Keep) or not isinstance(self.gain, Gain):
            raise TypeError(
                f"policy {self.name!r}: keep must be a Keep and gain a Gain, "
                f"got {self.keep!r} and {self.gain!r}"
            )
        for what, calibrated, got in (
            ("exits", self.num_exits, num_exits),
            ("classes", self.num_classes, num_classes),
        ):
            if calibrated not in (None, got):
                raise ValueError(
                    f"policy {self.name!r} was calibrated for {calibrated} {what}, got {got}"
                )
        if num_classes == 1 and self.reads_signals:
            raise ValueError(
                f"policy {self.name!r} decides by class probabilities, and a model with one output "
                "(regression) has none: use Never() or Budgeted(exit)"
            )
        self.table(num_exits)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready description, read back by `policy_from_dict`.

        Raises:
            ValueError: a subclass that would be read back as its parent, for want of a name.
        """
        if policy_class(self.name) is not type(self):
            raise ValueError(f"policy class {type(self).__name__} needs a name of its own")
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {"policy": self.name, **{k: _to_json(v) for k, v in fields.items()}}


def policy_from_dict(description: dict[str, Any]) -> Policy:
    """The policy that `Policy.to_dict` described.

    Raises:
        ValueError: an unknown policy, or fields that it does not have.
    """
    fields = {k: _from_json(v) for k, v in description.items() if k != "policy"}
    cls = policy_class(str(description.get("policy")))
    try:
        return cls(**fields)
    except TypeError as error:
        raise ValueError(f"policy {cls.name!r} cannot be made from {fields}: {error}") from None


def policy_class(name: str) -> type[Policy]:
    """The policy class of that name.

    Raises:
        ValueError: no policy has that name; the message lists those there are.
    """
    if name not in _REGISTRY:
        raise ValueError(
            f"unknown policy {name!r}; there are {sorted(_REGISTRY)} (yours is known once "
            "its class is defined or imported)"
        )
    return _REGISTRY[name]


def number(owner: str, name: str, value: float, low: float, high: float = math.inf) -> float:
    """`value` as a float if it lies in [low, high], else a ValueError that says so."""
    if isinstance(value, str) or not hasattr(value, "__float__"):
        raise ValueError(f"{owner}: {name} must be a number, got {value!r}")
    value = float(value)
    if not low <= value <= high:  # also catches NaN
        raise ValueError(f"{owner}: {name} must be in [{low:g}, {high:g}], got {value}")
    return value


def whole(owner: str, name: str, value: Any, low: int) -> int:
    """`value` as an int of at least `low`, else a ValueError that says so."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or int(value) < low:
        raise ValueError(f"{owner}: {name} must be a whole number, {low} or more; got {value!r}")
    return int(value)


def numbers(owner: str, name: str, values: Values | Tensor, low: float) -> Values:
    """A number, or a tuple of one number per exit, each at least `low` (see `number`)."""
    if hasattr(values, "tolist"):  # a tensor or an array
        values = values.tolist()
    if isinstance(values, Sequence) and not isinstance(values, str):
        return tuple(number(owner, name, value, low) for value in values)
    return number(owner, name, values, low)


def _to_json(value: Any) -> Any:
    if hasattr(value, "item"):  # a numpy number
        value = value.item()
    # JSON has no infinity; "inf" is what float() reads back.
    if isinstance(value, tuple):
        return [_to_json(v) for v in value]
    return str(value) if isinstance(value, float) and math.isinf(value) else value


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_from_json(v) for v in value)
    return float(value) if value in ("inf", "-inf") else value
