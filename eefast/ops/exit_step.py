"""`eefast::exit_step`: one exit for all samples of a batch, in one launch.

The op reads the hidden vectors of the running samples, computes the exit's head, the signals, the
recurrence and the decision, and writes the running state in place; samples that leave get their
logits and their exit layer. It returns nothing, so that it can be captured.

Two ways in: `exit_step(...)` validates everything and calls; a runtime, which calls once per layer
with tensors it made itself, takes the bare overload from `implementation(...)` once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from eefast.ops.implementations import Impl, implementation
from eefast.ops.recurrence import Gain, Keep
from eefast.ops.state import ExitState, HeadWeights
from eefast.ops.step import LARGEST_EXIT, Step


def exit_step(
    hidden: Tensor,  # (R, D) or (R, T, D), float32, float16 or bfloat16; rows may be strided
    head: HeadWeights,  # of hidden's dtype
    table: Tensor,  # (L, 3) float32
    state: ExitState,  # of N samples; written in place
    *,
    exit: int,
    layer: int,
    keep: Keep,
    gain: Gain,
    strict: bool = False,
    rows: Tensor | None = None,  # (R,) int64
    positions: Tensor | None = None,  # (N,) int64
    impl: Impl = "auto",
) -> None:
    """Run one exit for the R rows of `hidden` and update `state` in place.

    For every row whose sample is still running: logits of the head (accumulated in float32),
    softmax, confidence, argmax (ties: lowest index), normalised entropy,
    S = keep * S + weight * gain, and the decision. A sample that leaves gets its logits and
    `exit_layer = layer`, once; one that has left is never touched again. At the last exit
    (`exit == len(table)`) every sample leaves. `state.running[exit - 1]` becomes true if any row
    handed in is still running.

    Args:
        hidden: the vectors that the head reads, or the hidden states of all tokens, of which it
            reads one per row; no copy is made.
        head: weights of this exit's head.
        table: weight, threshold and tau of every exit (`Policy.table`).
        state: `ExitState.start(...)` before the first exit.
        exit: 1-based number of the exit, the row of `table`.
        layer: 1-based layer after which the exit stands, written to `state.exit_layer`.
        keep, gain, strict: the policy's row of the recurrence.
        rows: `hidden[r]` belongs to sample `rows[r]`, each at most once; None: to sample r.
        positions: with `hidden` of [R, T, D], the token that sample n's head reads; None: the
            first.
        impl: "auto", or the implementation to use; nothing falls back silently.

    Raises:
        ValueError, TypeError: an argument does not fit; `state` is unchanged.
        RuntimeError: the implementation is not built here.
    """
    classes = len(head.weight)
    op = implementation(impl, hidden.device, hidden.dtype, rows=len(hidden), classes=classes)
    if not 1 <= layer <= LARGEST_EXIT:
        raise ValueError(f"layer must be in 1..{LARGEST_EXIT} (0 means running), got {layer}")
    _validate(hidden, positions, head, table, state, exit, rows)
    step = Step(exit, layer, Keep(keep), Gain(gain), strict).pack()
    op(hidden, positions, *head, table, rows, step, *state)


def _validate(
    hidden: Tensor,
    positions: Tensor | None,
    head: HeadWeights,
    table: Tensor,
    state: ExitState,
    exit: int,
    rows: Tensor | None,
) -> None:
    if hidden.dim() not in (2, 3) or (hidden.numel() and hidden.stride(-1) != 1):
        raise ValueError(
            "hidden must be [R, D] or [R, T, D] with adjacent elements in a row, got shape "
            f"{list(hidden.shape)} and strides {hidden.stride()}"
        )
    r, d, tokens = len(hidden), hidden.shape[-1], hidden.shape[1] if hidden.dim() == 3 else 1
    if tokens < 1:
        raise ValueError(f"hidden must have at least one token, got shape {list(hidden.shape)}")
    c, n, exits = len(head.weight), len(state.score), len(table)
    dtype, f32, i32 = hidden.dtype, torch.float32, torch.int32
    _expect("head.weight", head.weight, [c, d], dtype, hidden.device)
    if head.bias is not None:
        _expect("head.bias", head.bias, [c], dtype, hidden.device)
    if head.pooler_weight is not None:
        _expect("head.pooler_weight", head.pooler_weight, [d, d], dtype, hidden.device)
    if head.pooler_bias is not None:
        if head.pooler_weight is None:
            raise ValueError("head.pooler_bias needs head.pooler_weight, got None for the latter")
        _expect("head.pooler_bias", head.pooler_bias, [d], dtype, hidden.device)
    if c == 0 or exits == 0:
        raise ValueError(f"there must be at least one class and one exit, got {c} and {exits}")
    if not 1 <= exit <= min(exits, LARGEST_EXIT):
        raise ValueError(f"exit must be in 1..{exits} (rows of table), got {exit}")
    _expect("table", table, [exits, 3], f32, hidden.device)
    _expect("state.score", state.score, [n], f32, hidden.device)
    _expect("state.prediction", state.prediction, [n], i32, hidden.device)
    _expect("state.exit_layer", state.exit_layer, [n], i32, hidden.device)
    if state.logits is not None:
        _expect("state.logits", state.logits, [n, c], f32, hidden.device)
    _expect("state.running", state.running, [exits], torch.bool, hidden.device)
    if state.control is not None:
        _expect("state.control", state.control, [exits, 2], torch.int64, hidden.device)
    if positions is not None:
        if hidden.dim() != 3:
            raise ValueError(f"positions need hidden of [R, T, D], got {list(hidden.shape)}")
        _expect("positions", positions, [n], torch.int64, hidden.device)
        _expect_in("positions", positions, tokens)
    if rows is None:
        if r != n:
            raise ValueError(f"hidden has {r} rows for {n} samples: rows must tell whose they are")
        return
    _expect("rows", rows, [r], torch.int64, hidden.device)
    _expect_in("rows", rows, n)
    if len(rows.unique()) != r:
        raise ValueError("rows must name each sample at most once, got repeated ones")


def _expect_in(name: str, indices: Tensor, size: int) -> None:
    if len(indices) and not (int(indices.min()) >= 0 and int(indices.max()) < size):
        raise ValueError(f"{name} must lie in 0..{size - 1}, got {indices.min()}..{indices.max()}")


def _expect(
    name: str, tensor: Tensor, shape: list[int], dtype: torch.dtype, device: torch.device
) -> None:
    if tensor.dtype != dtype:
        raise TypeError(f"{name} must be {dtype}, got {tensor.dtype}")
    if list(tensor.shape) != shape or not tensor.is_contiguous():
        contiguous = "" if tensor.is_contiguous() else " (not contiguous)"
        raise ValueError(
            f"{name} must be contiguous of shape {shape}, got {list(tensor.shape)}{contiguous}"
        )
    if tensor.device != device:
        raise ValueError(f"{name} must be on {device} like hidden, got {tensor.device}")
