"""The implementations of the ops, and which one runs where.

Every implementation is an overload of its op, made from one schema:

    eefast::exit_step.reference   plain PyTorch, any device         eefast/ops/reference.py
    eefast::exit_step.cpp         CPU; fp32, bf16                   csrc/cpu
    eefast::exit_step.triton      CUDA, ROCm; fp32, fp16, bf16      kernels
    eefast::exit_step.cuda        CUDA, up to 32 rows; as triton    csrc/cuda

`eefast::similarity_step` has all of them but `cuda`. None imports another. `docs/exit_step.md` says
how to add one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NoReturn

import torch

from eefast.ops import _native, _triton, reference

Impl = Literal["auto", "reference", "cpp", "triton", "cuda"]

Op = Literal["exit_step", "similarity_step"]

_SCHEMAS: dict[Op, str] = {
    "exit_step": (
        "(Tensor hidden, Tensor? offsets, Tensor? pooler_weight, Tensor? pooler_bias, "
        "Tensor weight, Tensor? bias, Tensor? cascade, Tensor? scorer, Tensor table, Tensor? rows, "
        "int step, "
        "Tensor(a!) score, Tensor(b!) prediction, Tensor(c!) exit_layer, Tensor(d!) logits, "
        "Tensor(e!) running, Tensor(f!)? votes, Tensor(g!)? memory, Tensor(h!)? control) -> ()"
    ),
    "similarity_step": (
        "(Tensor hidden, Tensor? offsets, Tensor table, Tensor? rows, int step, "
        "Tensor(a!) previous, Tensor(b!) score, Tensor(c!) exit_layer, Tensor(d!) running) -> ()"
    ),
}

CUDA_ROWS = 32
"""The most rows that `cuda` takes: its kernel keeps all of them in flight at once."""

CUDA_CLASSES = 256
"""The most classes for which `auto` takes `cuda`: its last block computes all of them alone."""


@dataclass(frozen=True)
class _Implementation:
    dtypes: tuple[torch.dtype, ...]
    devices: Callable[[], frozenset[str]] | None  # None: any
    require: Callable[[], object]  # raises RuntimeError where it is not built


_ALL_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
_IMPLEMENTATIONS = {
    "reference": _Implementation(_ALL_FLOATS, None, lambda: None),
    "cpp": _Implementation(
        (torch.float32, torch.bfloat16), lambda: frozenset({"cpu"}), _native.require
    ),
    "triton": _Implementation(_ALL_FLOATS, _triton.devices, _triton.require),
    "cuda": _Implementation(_ALL_FLOATS, lambda: frozenset({"cuda"}), _native.require_cuda),
}

_library = torch.library.Library("eefast", "FRAGMENT")


def _define(op: Op) -> dict[str, Callable[..., None]]:
    """The overloads of an op. Those of C++ are implemented there."""
    overloads = {}
    for name in _IMPLEMENTATIONS:
        if op == "similarity_step" and name == "cuda":
            continue  # not built: there is no head to compute, one launch of triton does it
        _library.define(f"{op}.{name}{_SCHEMAS[op]}")
        # Everything is written in place: with fake tensors there is nothing to do.
        torch.library.register_fake(f"eefast::{op}.{name}", lambda *_: None, lib=_library)
        overloads[name] = getattr(getattr(torch.ops.eefast, op), name)
    _library.impl(f"{op}.reference", getattr(reference, op), "CompositeExplicitAutograd")
    for key in ("CUDA", "CPU"):  # on the CPU under Triton's interpreter
        _library.impl(f"{op}.triton", getattr(_triton, op), key)
    return overloads


_OPS: dict[Op, dict[str, Callable[..., None]]] = {op: _define(op) for op in _SCHEMAS}


def implementation(
    impl: Impl = "auto",
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    rows: int | None = None,
    classes: int | None = None,
    op: Op = "exit_step",
) -> Callable[..., None]:
    """An op's overload for a device and a precision, to be called without further checks.

    `auto` is `cpp` on the CPU. On CUDA it is `cuda` for at most `CUDA_ROWS` rows and
    `CUDA_CLASSES` classes where that is built for the GPU at hand, because it launches once where
    `triton` launches twice for a pooler, and its launcher is C++; `triton` for everything else. (By
    reasoning: not measured on a GPU yet.) `similarity_step` has no `cuda`.

    Args:
        impl: "auto", or the implementation to use; nothing falls back silently.
        device: where the tensors are.
        dtype: of the hidden states and the head's weights.
        rows, classes: of the calls to come, as far as they are known.
        op: the op's name.

    Raises:
        ValueError: unknown `impl`, or one that `op` lacks or that cannot run on `device` or with
            so many rows.
        TypeError: an implementation that does not take `dtype`.
        RuntimeError: the implementation is not built here.
    """
    device = torch.device(device)
    kind = device.type
    if impl == "auto":
        impl = _default(device, rows, classes, op)
    if impl not in _IMPLEMENTATIONS:
        known = sorted(_IMPLEMENTATIONS)
        raise ValueError(f"impl must be 'auto' or one of {known}, got {impl!r}")
    if impl not in _OPS[op]:
        raise ValueError(
            f"impl={impl!r} has no {op}; impl='triton' does it in one launch for any number of rows"
        )
    traits = _IMPLEMENTATIONS[impl]
    if traits.devices is not None and kind not in traits.devices():
        runs_on = ", ".join(f"'{device}'" for device in sorted(traits.devices()))
        raise ValueError(f"impl={impl!r} runs on {runs_on}, got device '{kind}'")
    traits.require()
    if dtype not in traits.dtypes:
        _refuse_dtype(impl, dtype)
    if impl == "cuda" and rows is not None and rows > CUDA_ROWS:
        raise ValueError(
            f"impl='cuda' takes up to {CUDA_ROWS} rows, got {rows}; impl='triton' takes any number"
        )
    return _OPS[op][impl]


def sets_conditionals(op: Callable[..., None]) -> bool:
    """Whether an overload sets the conditional handle that it finds in `ExitState.control`."""
    return op is _OPS["exit_step"]["cuda"]


def is_cpp(op: Callable[..., None]) -> bool:
    """Whether an overload is the exit step in C++, which other ops in C++ can call themselves."""
    return op is _OPS["exit_step"]["cpp"]


def _default(device: torch.device, rows: int | None, classes: int | None, op: Op) -> Impl:
    if device.type == "cpu":
        return "cpp"
    if device.type != "cuda":
        raise ValueError(
            f"impl='auto' knows no implementation for device '{device.type}'; impl='reference' "
            "runs on any device"
        )
    few = rows is not None and rows <= CUDA_ROWS and "cuda" in _OPS[op]
    if few and classes is not None and classes <= CUDA_CLASSES and _native.cuda_runs_on(device):
        return "cuda"
    return "triton"


def _refuse_dtype(impl: str, dtype: torch.dtype) -> NoReturn:
    wanted = " or ".join(map(str, _IMPLEMENTATIONS[impl].dtypes))
    instead = "no implementation takes it"
    if dtype in _IMPLEMENTATIONS["reference"].dtypes:
        instead = f"use {wanted}, or impl='reference', which is slow"
    raise TypeError(
        f"impl={impl!r} takes hidden states and weights of {wanted}; got {dtype}: {instead}"
    )
