"""Whether a policy is something that the recurrence can express, and a model or trace can run."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Iterator
from types import CodeType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from eefast.ops import Accumulate, Gain, Keep, ScorerKind
from eefast.ops.kinds import GAINS_BY_SCORE, KEEPS_BY_SCORE

if TYPE_CHECKING:
    from eefast.policies.base import Policy

KINDS = {"keep": Keep, "gain": Gain, "accumulate": Accumulate, "scorer": ScorerKind}
_LISTS = "; ".join(
    f"{what} is one of {', '.join(f'{kind.__name__}.{member.name}' for member in kind)}"
    for what, kind in KINDS.items()
)
ROW = (
    "A policy is a row of the recurrence S = keep * S + weight * gain: it has a keep, a gain and "
    f"columns(num_exits), and may have an accumulate and a scorer; {_LISTS}."
)
"""What a policy can be, for errors."""


def check_members(cls: type[Policy]) -> None:
    """Raise TypeError for what a policy's class defines although nothing will ever call it.

    That is a public method or property that `Policy` does not have and that no other method of the
    class mentions, and a kind (`Gain.ONE`) under another name than those of the kinds. Fields,
    classmethods (which make policies) and other values are the author's own, unless their name is
    nearly one of `Policy`'s: a slip.
    """
    parents = cls.__mro__[1:]
    inherited = {k for base in parents for k in (*vars(base), *inspect.get_annotations(base))}
    public = sorted(name for name in inherited if not name.startswith("_"))
    members = {k: v for base in reversed(cls.__mro__) for k, v in vars(base).items()}
    for name, value in vars(cls).items():
        if name.startswith("_") or name in inherited or name in inspect.get_annotations(cls):
            continue
        slip = difflib.get_close_matches(name, public, 1, 0.85)
        method = callable(value) or isinstance(value, (property, functools.cached_property))
        if not slip and (isinstance(value, (classmethod, type)) or not (method or _kind(value))):
            continue
        if any(name in _mentioned(other) for k, other in members.items() if k != name):
            continue
        meant = f" (did you mean {slip[0]}?)" if slip else ""
        raise TypeError(
            f"policy class {cls.__name__}: nothing uses its {name!r}{meant}. {ROW} The name of a "
            "helper begins with an underscore."
        )


def check_whole(cls: type[Policy]) -> None:
    """Raise TypeError for a policy's class that leaves something out."""
    missing: frozenset[str] = getattr(cls, "__abstractmethods__", frozenset())
    if missing:
        raise TypeError(
            f"policy class {cls.__name__} has no {', no '.join(sorted(missing))}. {ROW}"
        )


def _kind(value: Any) -> bool:
    return isinstance(value, tuple(KINDS.values()))


def _mentioned(member: Any) -> set[str]:
    """The names that a method, property or the like mentions."""
    if isinstance(member, property):
        return set().union(*map(_mentioned, (member.fget, member.fset, member.fdel)))
    if isinstance(member, functools.cached_property):
        member = member.func
    code = getattr(inspect.unwrap(getattr(member, "__func__", member)), "__code__", None)
    return set() if code is None else {name for part in _nested(code) for name in part.co_names}


def _nested(code: CodeType) -> Iterator[CodeType]:
    """A function's code and that of the functions in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def check_kinds(policy: Policy) -> None:
    """Raise TypeError or ValueError for kinds that the recurrence does not have or cannot join."""
    for what, kind in KINDS.items():
        got = getattr(policy, what)
        if not isinstance(got, kind):
            raise TypeError(
                f"policy {policy.name!r}: {what} must be a {kind.__name__}, got {got!r}. {ROW}"
            )
    if policy.scorer is not ScorerKind.NONE and not (
        policy.gain in GAINS_BY_SCORE or policy.keep in KEEPS_BY_SCORE
    ):
        readers = ", ".join(map(str, (*GAINS_BY_SCORE, *KEEPS_BY_SCORE)))
        raise ValueError(
            f"policy {policy.name!r}: nothing reads the score of {policy.scorer!s}: it is for "
            f"{readers}; got {policy.gain!s} and {policy.keep!s}"
        )
    try:
        policy.recurrence.check()
    except ValueError as error:
        raise ValueError(f"policy {policy.name!r}: {error}") from None


def check_similarity(policy: Policy, num_exits: int, similarity: bool) -> None:
    """Raise ValueError for a policy by similarity where layers cannot be compared."""
    if not policy.recurrence.by_similarity:
        return
    if not similarity:
        raise ValueError(
            f"policy {policy.name!r} compares the hidden vectors of consecutive layers and answers "
            "with the last head: the model needs an exit after every layer and one head for all, "
            "eefast.attach_exits(..., share_head=True), which objective='mue' brings and trains, "
            "and a trace its similarities, record_trace(..., keep=('similarity',))"
        )
    used = list(policy.exits_used(num_exits))
    if used != list(range(1, num_exits + 1)):
        raise ValueError(
            f"policy {policy.name!r} compares consecutive layers, so it uses every exit (with an "
            f"infinite threshold where no sample may exit); got exits_used {used}"
        )


def check_outputs(policy: Policy, num_classes: int) -> None:
    """Raise ValueError for one output (regression), unless agreement or similarity decides."""
    parts = policy.accumulate is Accumulate.NONE and policy.scorer is ScorerKind.NONE
    keeps = policy.keep in (Keep.NEVER, Keep.ALWAYS, Keep.AGREE)
    gains = policy.gain in (Gain.ONE, Gain.AGREE, Gain.SIMILARITY)
    if num_classes == 1 and not (parts and keeps and gains):
        raise ValueError(
            f"policy {policy.name!r} decides by class probabilities, and a model with one output "
            "(regression) has none: use PABEE(patience, tolerance), Never() or Budgeted(exit)"
        )


def check_scores(policy: Policy, learned_scores: bool) -> None:
    """Raise ValueError for a policy that reads learned scores where there are none."""
    if policy.scorer is ScorerKind.ROW and not learned_scores:
        raise ValueError(
            f"policy {policy.name!r} reads learned scores and got none: the model needs a "
            "scorer, eefast.attach_exits(..., scorer_row=True), which objectives 'berxit', "
            "'palbert' and 'pcee-v2' bring and train, and a trace its scores, "
            "record_trace(..., keep=('scores',))"
        )


def check_tau(policy: Policy, table: Tensor, num_classes: int) -> None:
    """Raise ValueError for a tau that is out of the range of what it stands for."""
    tau = table[:, 2]
    if num_classes == 1 and policy.recurrence.compares and (tau <= 0).all():
        raise ValueError(
            f"policy {policy.name!r} with one output (regression) asks whether exits differ by "
            "less than tau, which must be greater than 0 (the tolerance of PABEE), got "
            f"{tau.tolist()}"
        )
    if policy.accumulate is Accumulate.LOG_PROBABILITIES and (tau < 0).any():
        raise ValueError(f"{policy.name}: tau weighs exits and must be 0 or more, got {tau}")
    if policy.accumulate is Accumulate.TEMPERATURE and (tau <= 0).any():
        raise ValueError(f"{policy.name}: tau is 1 / temperature and must be above 0, got {tau}")


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
