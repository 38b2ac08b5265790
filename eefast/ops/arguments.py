"""The checks of arguments that the ops share; each error names the argument."""

from __future__ import annotations

import torch
from torch import Tensor

from eefast.ops.step import LARGEST_EXIT


def expect(
    name: str, tensor: Tensor, shape: list[int], dtype: torch.dtype, device: torch.device
) -> None:
    """Refuse a tensor of another type, shape or device than hidden's, or not contiguous."""
    if tensor.dtype != dtype:
        raise TypeError(f"{name} must be {dtype}, got {tensor.dtype}")
    if list(tensor.shape) != shape or not tensor.is_contiguous():
        contiguous = "" if tensor.is_contiguous() else " (not contiguous)"
        raise ValueError(
            f"{name} must be contiguous of shape {shape}, got {list(tensor.shape)}{contiguous}"
        )
    if tensor.device != device:
        raise ValueError(f"{name} must be on {device} like hidden, got {tensor.device}")


def check_layer(layer: int) -> None:
    """Refuse a layer that does not fit beside 0, which means running."""
    if not 1 <= layer <= LARGEST_EXIT:
        raise ValueError(f"layer must be in 1..{LARGEST_EXIT} (0 means running), got {layer}")


def check_exit(exit: int, table: Tensor, device: torch.device) -> None:
    """Refuse a table that is not [L, 3], and an exit that is no row of it."""
    exits = len(table)
    if not 1 <= exit <= min(exits, LARGEST_EXIT):
        raise ValueError(f"exit must be in 1..{exits} (rows of table), got {exit}")
    expect("table", table, [exits, 3], torch.float32, device)


def rows_of(hidden: Tensor, offsets: Tensor | None) -> int:
    """How many rows the call has; refuses hidden states and offsets that do not fit."""
    dims = (2, 3) if offsets is None else (2,)
    if hidden.dim() not in dims or (hidden.numel() and hidden.stride(-1) != 1):
        wanted = "[R, D] or [R, T, D]" if offsets is None else "[M, D], as offsets are given,"
        raise ValueError(
            f"hidden must be {wanted} with adjacent elements in a row, got shape "
            f"{list(hidden.shape)} and strides {hidden.stride()}"
        )
    if hidden.dim() == 3 and hidden.shape[1] < 1:
        raise ValueError(f"hidden must have at least one token, got shape {list(hidden.shape)}")
    if offsets is None:
        return len(hidden)
    expect("offsets", offsets, [offsets.numel()], torch.int64, hidden.device)
    _expect_in("offsets", offsets, len(hidden))
    return len(offsets)


def check_rows(rows: Tensor | None, count: int, samples: int, device: torch.device) -> None:
    """Refuse rows that do not give each of `count` rows a sample of its own."""
    if rows is None:
        if count != samples:
            raise ValueError(
                f"hidden has {count} rows for {samples} samples: rows must say to which sample "
                "each belongs"
            )
        return
    expect("rows", rows, [count], torch.int64, device)
    _expect_in("rows", rows, samples)
    if len(rows.unique()) != count:
        raise ValueError("rows must name each sample at most once, got repeated ones")


def _expect_in(name: str, indices: Tensor, size: int) -> None:
    if len(indices) and not (int(indices.min()) >= 0 and int(indices.max()) < size):
        raise ValueError(f"{name} must lie in 0..{size - 1}, got {indices.min()}..{indices.max()}")
