"""`eefast::exit_step`: one exit for all samples of a batch, in one launch.

The op reads the hidden vectors of the running samples, computes the exit's head, the signals, the
recurrence and the decision, and writes the running state in place; samples that leave get their
logits and their exit layer. It returns nothing, so that it can be captured.

Every implementation is an overload of one op, made from one schema:

    eefast::exit_step.reference   plain PyTorch, any device      eefast/ops/reference.py
    eefast::exit_step.cpp         CPU, fp32 and bf16             csrc/cpu

Two ways in: `exit_step(...)` validates everything and calls; a runtime, which calls once per layer
with tensors it made itself, takes the bare overload from `implementation(...)` once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from eefast.ops import _native, reference
from eefast.ops.recurrence import NO_PREDICTION, Gain, Keep
from eefast.ops.step import LARGEST_EXIT, Step

Impl = Literal["auto", "reference", "cpp"]

_SCHEMA = (
    "exit_step.{}(Tensor hidden, Tensor? pooler_weight, Tensor? pooler_bias, Tensor weight, "
    "Tensor? bias, Tensor table, Tensor? rows, int step, Tensor(a!) score, Tensor(b!) prediction, "
    "Tensor(c!) exit_layer, Tensor(d!) logits, Tensor(e!) running) -> ()"
)
_DTYPES = {
    "reference": (torch.float32, torch.float16, torch.bfloat16),
    "cpp": (torch.float32, torch.bfloat16),
}

_library = torch.library.Library("eefast", "FRAGMENT")
for _name in _DTYPES:
    _library.define(_SCHEMA.format(_name))
    # Everything is written in place: with fake tensors there is nothing to do.
    torch.library.register_fake(f"eefast::exit_step.{_name}", lambda *_: None, lib=_library)
_library.impl("exit_step.reference", reference.exit_step, "CompositeExplicitAutograd")

_OPS: dict[str, Callable[..., None]] = {
    name: getattr(torch.ops.eefast.exit_step, name) for name in _DTYPES
}


class HeadWeights(NamedTuple):
    """The weights of one exit head, as the exit step takes them.

    linear: logits = weight @ h + bias. pooler: h is replaced by
    tanh(pooler_weight @ h + pooler_bias) first.
    """

    pooler_weight: Tensor | None  # (D, D) or None
    pooler_bias: Tensor | None  # (D,) or None
    weight: Tensor  # (C, D)
    bias: Tensor | None  # (C,) or None


class ExitState(NamedTuple):
    """The running state of the N samples of one call, in the caller's order."""

    score: Tensor  # (N,) float32: S_i
    prediction: Tensor  # (N,) int32: at the last exit met; -1 before the first
    exit_layer: Tensor  # (N,) int32: layer after which the sample left; 0 while running
    logits: Tensor  # (N, C) float32: of the exit at which the sample left
    running: Tensor  # (L,) bool: whether any sample was still running after exit i

    @classmethod
    def start(
        cls, samples: int, classes: int, exits: int, device: torch.device | str = "cpu"
    ) -> ExitState:
        """The state before the first exit."""
        if device == "cpu" and _native.AVAILABLE:  # five torch functions take 40 us longer, cold
            return cls(*torch.ops.eefast.exit_state.default(samples, classes, exits))
        full = torch.full
        return cls(
            full((samples,), 0.0, dtype=torch.float32, device=device),
            full((samples,), NO_PREDICTION, dtype=torch.int32, device=device),
            full((samples,), 0, dtype=torch.int32, device=device),
            full((samples, classes), 0.0, dtype=torch.float32, device=device),
            full((exits,), False, dtype=torch.bool, device=device),
        )


def implementation(
    impl: Impl = "auto",
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Callable[..., None]:
    """The op's overload for a device and a precision, to be called without further checks.

    `auto` is `cpp` on the CPU. There is no default for other devices yet: ask for `reference`.

    Raises:
        ValueError: unknown `impl`, or one that cannot run on `device`.
        TypeError: an implementation that does not take `dtype`.
        RuntimeError: the implementation is not built here.
    """
    kind = torch.device(device).type
    if impl == "auto":
        if kind != "cpu":
            raise ValueError(
                f"impl='auto' knows no implementation for device '{kind}'; impl='reference' runs "
                "on any device"
            )
        impl = "cpp"
    if impl not in _OPS:
        raise ValueError(f"impl must be 'auto' or one of {sorted(_OPS)}, got {impl!r}")
    if impl == "cpp":
        if kind != "cpu":
            raise ValueError(f"impl='cpp' runs on 'cpu', got device '{kind}'")
        _native.require()
    if dtype not in _DTYPES[impl]:
        wanted = ", ".join(map(str, _DTYPES[impl]))
        others = [name for name, dtypes in _DTYPES.items() if dtype in dtypes]
        raise TypeError(
            f"impl={impl!r} takes hidden states and weights of {wanted}; got {dtype}, "
            f"which {others or 'no implementation'} takes"
        )
    return _OPS[impl]


def exit_step(
    hidden: Tensor,  # (R, D) float32, float16 or bfloat16; rows may be strided
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
        hidden: the vectors that the head reads, e.g. `hidden_states[:, 0]`; no copy is made.
        head: weights of this exit's head.
        table: weight, threshold and tau of every exit (`Policy.table`).
        state: `ExitState.start(...)` before the first exit.
        exit: 1-based number of the exit, the row of `table`.
        layer: 1-based layer after which the exit stands, written to `state.exit_layer`.
        keep, gain, strict: the policy's row of the recurrence.
        rows: `hidden[r]` belongs to sample `rows[r]`, each at most once; None: to sample r.
        impl: "auto", or the implementation to use; nothing falls back silently.

    Raises:
        ValueError, TypeError: an argument does not fit; `state` is unchanged.
        RuntimeError: the implementation is not built here.
    """
    op = implementation(impl, hidden.device, hidden.dtype)
    if not 1 <= layer <= LARGEST_EXIT:
        raise ValueError(f"layer must be in 1..{LARGEST_EXIT} (0 means running), got {layer}")
    _validate(hidden, head, table, state, exit, rows)
    op(hidden, *head, table, rows, Step(exit, layer, Keep(keep), Gain(gain), strict).pack(), *state)


def _validate(
    hidden: Tensor,
    head: HeadWeights,
    table: Tensor,
    state: ExitState,
    exit: int,
    rows: Tensor | None,
) -> None:
    if hidden.dim() != 2 or (hidden.numel() and hidden.stride(1) != 1):
        raise ValueError(
            "hidden must be [R, D] with adjacent elements in a row, got shape "
            f"{list(hidden.shape)} and strides {hidden.stride()}"
        )
    (r, d), c, n, exits = hidden.shape, len(head.weight), len(state.score), len(table)
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
    _expect("state.logits", state.logits, [n, c], f32, hidden.device)
    _expect("state.running", state.running, [exits], torch.bool, hidden.device)
    if rows is None:
        if r != n:
            raise ValueError(f"hidden has {r} rows for {n} samples: rows must tell whose they are")
        return
    _expect("rows", rows, [r], torch.int64, hidden.device)
    if r and not (int(rows.min()) >= 0 and int(rows.max()) < n):
        raise ValueError(f"rows must lie in 0..{n - 1}, got {rows.min()}..{rows.max()}")
    if len(rows.unique()) != r:
        raise ValueError("rows must name each sample at most once, got repeated ones")


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
