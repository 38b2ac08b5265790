"""How the fields of a policy are written down: JSON, and tensors beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor


def tensors_in(field: str, value: Any) -> dict[str, Tensor]:
    """The tensors of a field's value by name: a tensor, several in a tuple, or none."""
    if isinstance(value, Tensor):
        return {field: value}
    if isinstance(value, tuple) and value and all(isinstance(v, Tensor) for v in value):
        return {f"{field}.{i}": tensor for i, tensor in enumerate(value)}
    return {}


def to_json(value: Any) -> Any:
    """A field's value as JSON has it."""
    if hasattr(value, "item"):  # a numpy number
        value = value.item()
    # JSON has no infinity; "inf" is what float() reads back.
    if isinstance(value, tuple):
        return [to_json(v) for v in value]
    return str(value) if isinstance(value, float) and math.isinf(value) else value


def from_json(value: Any) -> Any:
    """What `to_json` was given."""
    if isinstance(value, list):
        return tuple(from_json(v) for v in value)
    return float(value) if value in ("inf", "-inf") else value


def fields_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor | tuple[Tensor, ...]]:
    """The fields that `tensors_in` was given."""
    fields: dict[str, Tensor | tuple[Tensor, ...]] = {}
    several: dict[str, dict[int, Tensor]] = {}
    for key, tensor in tensors.items():
        field, _, index = key.partition(".")
        if index:
            several.setdefault(field, {})[int(index)] = tensor
        else:
            fields[field] = tensor
    for field, by_index in several.items():
        fields[field] = tuple(by_index[i] for i in sorted(by_index))
    return fields
