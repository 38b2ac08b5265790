"""The CUDA kernel of the exit step on an emulated GPU: its source, compiled for the CPU.

`exit_step` is called like `eefast.ops.exit_step`, on CPU tensors. device.h describes the emulated
GPU and which mistakes it shows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from eefast.ops.exit_step import _validate
from eefast.ops.implementations import CUDA_ROWS
from eefast.ops.kinds import ScorerKind
from eefast.ops.recurrence import Recurrence
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
        raise RuntimeError(f"{call['control'][0]} arrivals remain after the launch")
    return list(conditionals)


def prepare(
    hidden: Tensor,
    head: HeadWeights,
    table: Tensor,
    state: ExitState,
    *,
    exit: int,
    layer: int,
    scorer_kind: int = ScorerKind.NONE,
    scorer: Tensor | None = None,
    rows: Tensor | None = None,
    offsets: Tensor | None = None,
    **kinds: Any,
) -> dict[str, Any]:
    """The call as the library takes it: numbers, and arrays that share the tensors' memory."""
    recurrence = Recurrence(**kinds, scorer=scorer_kind)
    _validate(hidden, offsets, head, scorer, table, state, exit, rows, recurrence)
    count = len(hidden if offsets is None else offsets)
    if count > CUDA_ROWS:
        raise ValueError(f"impl='cuda' takes up to {CUDA_ROWS} rows, got {count}")
    control = state.control
    if control is None:
        control = torch.zeros(len(table), 2, dtype=torch.int64)
    reach = sum((n - 1) * s for n, s in zip(hidden.shape, hidden.stride(), strict=True)) + 1
    arrays = {
        **head._asdict(), **state._asdict(), "scorer": scorer, "offsets": offsets, "samples": rows,
        "hidden": hidden.as_strided([reach if hidden.numel() else 0], [1]), "table": table[:exit],
        "running": state.running[exit - 1 : exit], "control": control[exit - 1],
    }  # fmt: skip
    return {
        **{name: _array(tensor) for name, tensor in arrays.items()},
        "dtype": str(hidden.dtype).removeprefix("torch."), "rows": count,
        "row_stride": hidden.stride(0), "width": hidden.shape[-1], "outputs": len(head.weight),
        "classes": state.logits.shape[1], "units": 0 if scorer is None else len(scorer),
        "memories": 0 if state.memory is None else state.memory.shape[1],
        "keep": int(recurrence.keep), "gain": int(recurrence.gain), "strict": recurrence.strict,
        "accumulate": int(recurrence.accumulate), "scorer_kind": int(scorer_kind),
        "exit": exit, "last_exit": exit == len(table), "layer": layer,
    }  # fmt: skip


def _array(tensor: Tensor | None) -> Any:
    if tensor is None:
        return None
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
