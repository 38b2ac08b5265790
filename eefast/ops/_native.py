"""Loads `eefast._C`, the C++ and CUDA half, which registers its ops with torch.

Importing this module loads the extension if it is built. If a built extension does not load (for
instance because it was built for a newer torch), that is an error at once, not a missing
implementation.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

_LIBRARY = Path(__file__).parents[1] / "_C.abi3.so"

AVAILABLE: bool = _LIBRARY.is_file()
"""Whether the extension is built, and so loaded."""

if AVAILABLE:
    torch.ops.load_library(str(_LIBRARY))


def has_cuda() -> bool:
    """Whether the extension is built with its CUDA half."""
    return AVAILABLE and torch._C._dispatch_has_kernel_for_dispatch_key(
        "eefast::exit_step.cuda", "CUDA"
    )


@cache
def cuda_runs_on(device: torch.device) -> bool:
    """Whether the CUDA half is built, and for a GPU such as this one."""
    if not has_cuda() or not torch.cuda.is_available():
        return False
    with torch.cuda.device(device):
        runs: bool = torch.ops.eefast.cuda_runs_here()
    return runs


def require() -> None:
    """Raise unless the extension is built.

    Raises:
        RuntimeError: it is not; the message says how to build it.
    """
    if not AVAILABLE:
        raise RuntimeError(
            "eefast's C++ extension is not built here, so impl='cpp' is not available: install a "
            "C++ compiler (g++ or clang++), torch>=2.11, setuptools and ninja, then reinstall "
            "eefast with `pip install --no-build-isolation`. impl='reference' needs no extension."
        )


def require_cuda() -> None:
    """Raise unless the extension is built with its CUDA half.

    Raises:
        RuntimeError: it is not; the message says how to build it.
    """
    if not has_cuda():
        raise RuntimeError(
            "eefast's extension is built without CUDA here, so impl='cuda' is not available: "
            "reinstall eefast with `pip install --no-build-isolation` where nvcc is (see "
            "CUDA_HOME). impl='triton' needs no compiler."
        )
