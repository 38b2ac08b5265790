"""What the layers of one call are given beside the hidden states."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from eefast.backbones.base import Context

Path = tuple[Any, ...]
Rows = Mapping[Path, tuple[int, int]]
"""Where tensors that belong to samples lie: their axis of samples, and how many rows a sample has
there (more than one where heads and samples share an axis)."""


class Arguments(NamedTuple):
    """Of one layer's call, without the hidden states."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    hidden: str | None  # the hidden states' name; None: they come first


class GenericContext(Context):
    """The recorded arguments of every layer, and what the readout needs.

    Args:
        calls: of each layer.
        samples: how many there are.
        last: of each sample, its last token that is not padding, [B] int64; None if not asked for.
        shown: which of the hidden vectors count in a mean, [B, T] bool; None: all.
        rows: which tensors belong to samples; asked for only if rows are dropped.
    """

    def __init__(
        self,
        calls: list[Arguments],
        samples: int,
        last: Tensor | None,
        shown: Tensor | None,
        rows: Callable[[list[Arguments]], Rows],
    ) -> None:
        self.calls = calls
        self.samples = samples
        self.last = last
        self.shown = shown
        self._rows = rows

    def select(self, rows: Tensor) -> GenericContext:
        """The context of the rows `rows` ([K] int64), in that order; what all share stays."""
        if self.samples == 0:
            return self
        where = self._rows(self.calls)
        done: dict[tuple[int, int], Tensor] = {}  # layers share their masks

        def selected(path: Path, tensor: Tensor) -> Tensor:
            if path not in where:
                return tensor
            axis, each = where[path]
            key = id(tensor), axis
            if key not in done:
                done[key] = _taken(tensor, axis, each, self.samples, rows)
            return done[key]

        return GenericContext(
            [mapped(selected, call, (i,)) for i, call in enumerate(self.calls)],
            len(rows),
            None if self.last is None else self.last.index_select(0, rows),
            None if self.shown is None else self.shown.index_select(0, rows),
            lambda _: where,  # the paths stay what they are, whatever rows are selected
        )


def _taken(tensor: Tensor, axis: int, each: int, samples: int, rows: Tensor) -> Tensor:
    if each == 1:
        return tensor.index_select(axis, rows)
    parts: Tensor = tensor.unflatten(axis, (samples, each))
    return parts.index_select(axis, rows).flatten(axis, axis + 1)


def mapped(change: Callable[[Path, Tensor], Any], tree: Any, path: Path = ()) -> Any:
    """`tree` (tuples, lists, dictionaries) with `change(path, tensor)` for each tensor in it."""
    if isinstance(tree, Tensor):
        return change(path, tree)
    if isinstance(tree, dict):
        return {key: mapped(change, value, (*path, key)) for key, value in tree.items()}
    if isinstance(tree, tuple | list):
        values = [mapped(change, value, (*path, i)) for i, value in enumerate(tree)]
        return tree._make(values) if hasattr(tree, "_make") else type(tree)(values)
    return tree


def structure_of(calls: list[Arguments], samples: int) -> tuple[Any, ...]:
    """What decides which tensors belong to samples: a mask may be there or not, own or shared."""
    found: list[Any] = []
    mapped(lambda path, t: found.append((path, t.dim(), t.shape[:1] == (samples,))), calls)
    return tuple(found)


def rows_of(calls: list[Arguments], doubled: list[Arguments], samples: int) -> Rows:
    """Which tensors belong to samples, told from a call and one with all its samples twice.

    Raises:
        ValueError: a tensor that grows with the samples in a way that rows cannot be taken from.
    """
    shapes: dict[Path, Any] = {}
    mapped(lambda path, tensor: shapes.__setitem__(path, tensor.shape), calls)
    found: dict[Path, tuple[int, int]] = {}

    def compare(path: Path, tensor: Tensor) -> None:
        before, after = shapes.get(path), tensor.shape
        if before is None or before == after:
            return
        axes = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
        size = before[axes[0]]
        if len(axes) != 1 or size % samples or after[axes[0]] != 2 * size:
            raise ValueError(
                f"what layer {path[0] + 1} is given under {path[1:]} has the shape {list(before)} "
                f"for {samples} samples and {list(after)} for {2 * samples}: its rows cannot be "
                "told apart"
            )
        found[path] = (axes[0], size // samples)

    mapped(compare, doubled)
    return found
