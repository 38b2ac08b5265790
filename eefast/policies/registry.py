"""Policies by name: their classes, and policies made from their descriptions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from eefast.policies.description import fields_of, from_json
from eefast.policies.expected import Expected

if TYPE_CHECKING:
    from eefast.policies.base import Policy

_REGISTRY: dict[str, type[Policy]] = {}


def register(cls: type[Policy]) -> None:
    """Make a policy's class known by its name.

    Raises:
        ValueError: another class has that name.
    """
    known = _REGISTRY.get(cls.name)
    # The same class again: a notebook cell was run twice.
    if known is not None and _place(known) != _place(cls):
        raise ValueError(f"there is a policy named {cls.name!r} already: {'.'.join(_place(known))}")
    _REGISTRY[cls.name] = cls


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


def policy_from_dict(
    description: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None
) -> Policy:
    """The policy that `Policy.to_dict` and `Policy.tensors` described.

    Raises:
        TypeError: the description is no dictionary.
        ValueError: an unknown policy, fields that it does not have or that hold something else,
            or tensors that are missing.
    """
    if not isinstance(description, Mapping):
        raise TypeError(f"a policy is described by a dictionary, got {description!r}")
    fields = {k: from_json(v) for k, v in description.items() if k not in ("policy", "expected")}
    fields.update(fields_of(tensors or {}))
    cls = policy_class(str(description.get("policy")))
    expected = description.get("expected")
    if expected is not None:
        expected = Expected.from_dict(expected)
    try:
        return cls(**fields).expecting(expected)
    except TypeError as error:
        raise ValueError(
            f"policy {cls.name!r} cannot be made from {sorted(map(str, fields))}: {error}"
        ) from None


def _place(cls: type) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__
