"""Whether a policy is something that the recurrence can express."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

import torch

from eefast.ops import Accumulate, Gain, Keep, ScorerKind

if TYPE_CHECKING:
    from eefast.policies.base import Policy


def check_kinds(policy: Policy) -> None:
    """Raise TypeError or ValueError for kinds that the recurrence does not have or cannot join."""
    for what, kind in (
        ("keep", Keep),
        ("gain", Gain),
        ("accumulate", Accumulate),
        ("scorer", ScorerKind),
    ):
        got = getattr(policy, what)
        if not isinstance(got, kind):
            raise TypeError(
                f"policy {policy.name!r}: {what} must be one of {_names(kind)}, got {got!r}"
            )
    if policy.scorer is not ScorerKind.NONE and not (
        policy.gain is Gain.SCORE or policy.keep is Keep.NOT_SCORE
    ):
        raise ValueError(
            f"policy {policy.name!r}: nothing reads the score of {policy.scorer!s}: it is for "
            f"Gain.SCORE or Keep.NOT_SCORE, got {policy.gain!s} and {policy.keep!s}"
        )
    try:
        policy.recurrence.check()
    except ValueError as error:
        raise ValueError(f"policy {policy.name!r}: {error}") from None


def check_scorer(policy: Policy, exit: int, num_classes: int) -> None:
    """Raise ValueError unless `policy.scorer_weights(exit)` is what `Policy` says."""
    weights = policy.scorer_weights(exit)
    if (weights is not None) != (policy.scorer is ScorerKind.NETWORK):
        raise ValueError(
            f"policy {policy.name!r}: scorer_weights({exit}) must be a tensor with "
            f"ScorerKind.NETWORK and None otherwise, got {type(weights).__name__} with "
            f"{policy.scorer!r}"
        )
    if weights is None:
        return
    columns = num_classes + 2 + exit + 2
    if weights.dim() != 2 or not len(weights) or weights.shape[1] != columns:
        raise ValueError(
            f"policy {policy.name!r}: scorer_weights({exit}) must be [H, {columns}] for "
            f"{num_classes} classes, got {list(weights.shape)}"
        )
    if weights.dtype is not torch.float32 or not weights.isfinite().all():
        raise ValueError(
            f"policy {policy.name!r}: scorer_weights({exit}) must be finite and float32, got "
            f"{weights.dtype}"
        )


def _names(kind: type[IntEnum]) -> str:
    return ", ".join(f"{kind.__name__}.{member.name}" for member in kind)
