"""The numbers that policies hold, checked when a policy is made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from reprlib import repr as _short
from typing import Any

import numpy as np
from torch import Tensor

Values = float | Sequence[float]
"""One number for every exit, or one number per exit."""


def probabilities() -> list[float]:
    """Thresholds on a probability or a normalised entropy to choose from: 0.02 to 0.98."""
    return [i / 50 for i in range(1, 50)]


def number(owner: str, name: str, value: Any, low: float, high: float = math.inf) -> float:
    """`value` as a float if it lies in [low, high], else a ValueError that says so."""
    try:
        if isinstance(value, (bool, np.bool_, str)):  # float() would take them
            raise TypeError
        given = float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # a tensor of several: Runtime
        raise ValueError(f"{owner}: {name} must be a number, got {_short(value)}") from None
    if not low <= given <= high:  # also catches NaN
        raise ValueError(f"{owner}: {name} must be in [{low:g}, {high:g}], got {given}")
    return given


def whole(owner: str, name: str, value: Any, low: int) -> int:
    """`value` as an int of at least `low`, else a ValueError that says so."""
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__") or int(value) < low:
        raise ValueError(
            f"{owner}: {name} must be a whole number, {low} or more; got {_short(value)}"
        )
    if int(value) > 2**24:  # float32, the dtype of the policy table, has gaps beyond
        raise ValueError(f"{owner}: {name} must be at most 2^24, got {_short(value)}")
    return int(value)


def numbers(owner: str, name: str, values: Values | Tensor, low: float) -> Values:
    """A number, or a tuple of one number per exit, each at least `low` (see `number`)."""
    if hasattr(values, "tolist"):  # a tensor or an array
        values = values.tolist()
    if isinstance(values, Sequence) and not isinstance(values, str):
        return tuple(number(owner, name, value, low) for value in values)
    return number(owner, name, values, low)
