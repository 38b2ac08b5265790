"""The CUDA kernel of the exit step on an emulated GPU: its source, compiled for the CPU.

`exit_step` is called like `eefast.ops.exit_step`, on CPU tensors. device.h says what the emulated
GPU is like, and which mistakes it shows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from eefast.ops.exit_step import _validate
from eefast.ops.implementations import CUDA_ROWS
from eefast.ops.state import ExitState, HeadWeights
from tests.emulation.build import load


def exit_step(
    hidden: Tensor,
    head: HeadWeights,
    table: Tensor,
    state: ExitState,
    *,
    seed: int = 0,
    kernel: str | None = None,
    **step: Any,
) -> list[tuple[int, int]]:
    """One exit, threads and blocks in an order drawn from `seed`.

    `step` is as for `prepare`, `kernel` a text to use instead of exit_step.cuh's. Returns the
    handles and values of all calls of cudaGraphSetConditional.
    """
    call = prepare(hidden, head, table, state, **step)
    conditionals = load(kernel).exit_step(call, seed)
    if call["control"][0]:
        raise RuntimeError(f"{call['control'][0]} arrivals are left after the launch")
    return list(conditionals)


def prepare(
    hidden: Tensor,
    head: HeadWeights,
    table: Tensor,
    state: ExitState,
    *,
    exit: int,
    layer: int,
    keep: int,
    gain: int,
    strict: bool = False,
    rows: Tensor | None = None,
    positions: Tensor | None = None,
) -> dict[str, Any]:
    """The call as the library takes it: numbers, and arrays that share the tensors' memory."""
    _validate(hidden, positions, head, table, state, exit, rows)
    if len(hidden) > CUDA_ROWS:
        raise ValueError(f"impl='cuda' takes up to {CUDA_ROWS} rows, got {len(hidden)}")
    control = state.control
    if control is None:
        control = torch.zeros(len(table), 2, dtype=torch.int64)
    reach = sum((n - 1) * s for n, s in zip(hidden.shape, hidden.stride(), strict=True)) + 1
    return {
        "hidden": _array(hidden.as_strided([reach if hidden.numel() else 0], [1])),
        "dtype": str(hidden.dtype).removeprefix("torch."),
        "rows": len(hidden), "row_stride": hidden.stride(0), "width": hidden.shape[-1],
        "token_stride": hidden.stride(1) if hidden.dim() == 3 else 0,
        "samples": _array(rows), "positions": _array(positions),
        **{name: _array(tensor) for name, tensor in head._asdict().items()},
        "classes": len(head.weight), "row_of_table": _array(table[exit - 1]),
        "keep": int(keep), "gain": int(gain), "strict": strict, "last_exit": exit == len(table),
        "layer": layer, "score": _array(state.score), "prediction": _array(state.prediction),
        "exit_layer": _array(state.exit_layer), "logits": _array(state.logits),
        "running": _array(state.running[exit - 1 : exit]), "control": _array(control[exit - 1]),
    }  # fmt: skip


def _array(tensor: Tensor | None) -> Any:
    if tensor is None:
        return None
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
