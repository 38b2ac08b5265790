"""The numbers that policies hold, checked when a policy is made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

Values = float | Sequence[float]
"""One number for every exit, or one number per exit."""


def probabilities() -> list[float]:
    """Thresholds on a probability or a normalised entropy to choose from: 0.02 to 0.98."""
    return [i / 50 for i in range(1, 50)]


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
