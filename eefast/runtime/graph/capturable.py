"""Finds what a CUDA graph cannot hold, before anything is captured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Capturable(TorchDispatchMode):
    """While it is active, an operator that cannot be captured raises instead of running.

    Without it such an operator fails in the middle of a capture, with an error of CUDA that names
    nothing.

    Args:
        place: says where the model is, for the error's text.

    Raises:
        RuntimeError: such an operator; the message names it, and the traceback its line.
    """

    def __init__(self, place: Callable[[], str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._place = place

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        with self:  # in inference mode, operators made of others arrive whole
            out = func.decompose(*args, **kwargs)
        if out is not NotImplemented:
            return out
        reason = _reason_against(func, args, kwargs)
        if reason is not None:
            raise not_capturable(self._place(), f"{func} {reason}")
        return func(*args, **kwargs)


def not_capturable(place: str, reason: str) -> RuntimeError:
    """The error for a model whose layers cannot be captured."""
    return RuntimeError(
        f"{place}: cannot be captured into a CUDA graph: {reason}; runtime='runahead' takes any "
        "layers"
    )


def _reason_against(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    if torch.Tag.data_dependent_output in func.tags:
        return "has the host wait for a number"
    # Indexing has the tag because of boolean masks; with whole numbers it is harmless.
    indexes = func.overloadpacket in _INDEXING
    by_mask = indexes and any(_is_mask(leaf) for leaf in tree_leaves(args[1]))
    if by_mask or (torch.Tag.dynamic_output_shape in func.tags and not indexes):
        return "makes a tensor whose shape depends on numbers"
    if torch.Tag.nondeterministic_seeded in func.tags and _draws(func, args, kwargs):
        return "draws random numbers"
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    if func.overloadpacket not in _COPYING:  # to others, a scalar on the host is an argument
        tensors = [tensor for tensor in tensors if tensor.dim()]
    devices = {tensor.device.type for tensor in tensors}
    if tensors and kwargs.get("device") is not None:
        devices.add(torch.device(kwargs["device"]).type)
    if len(devices) > 1:
        return f"moves numbers between {' and '.join(sorted(devices))}"
    return None


_INDEXING = {
    torch.ops.aten.index,
    torch.ops.aten.index_put,
    torch.ops.aten.index_put_,
    torch.ops.aten._index_put_impl_,
}

_COPYING = {torch.ops.aten._to_copy, torch.ops.aten.copy_, torch.ops.aten._copy_from}


def _is_mask(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.dtype in (torch.bool, torch.uint8)


def _draws(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Attention has the tag because of its dropout, which is off in evaluation mode."""
    for position, argument in enumerate(func._schema.arguments):
        if argument.name == "dropout_p":
            given = args[position] if position < len(args) else kwargs.get("dropout_p", 0.0)
            return bool(given)
    return True
