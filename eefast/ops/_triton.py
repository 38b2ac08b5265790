"""Loads `eefast.kernels`, the Triton half, when it is first needed: Triton takes a second."""

from __future__ import annotations

import importlib
import importlib.util
import os
from functools import cache
from typing import Any


@cache
def _kernels() -> Any:
    return importlib.import_module("eefast.kernels")


def exit_step(*args: Any) -> None:
    """`eefast::exit_step.triton`; see `eefast.kernels`."""
    _kernels().launch_exit_step(*args)


def similarity_step(*args: Any) -> None:
    """`eefast::similarity_step.triton`; see `eefast.kernels`."""
    _kernels().launch_similarity_step(*args)


def devices() -> frozenset[str]:
    """Where Triton runs: on GPUs, and on the CPU where its interpreter is asked for."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    return frozenset({"cuda", "cpu"} if interpreted else {"cuda"})


def require() -> None:
    """Raise unless Triton is installed.

    Raises:
        RuntimeError: it is not installed; the message says how to install it.
    """
    if importlib.util.find_spec("triton") is None:
        raise RuntimeError(
            "impl='triton' needs the package triton (`pip install triton>=3.6`), which is not "
            "installed here. impl='reference' runs without it."
        )
