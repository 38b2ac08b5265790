"""What a call of the Triton exit step compiles and launches, found out without a GPU.

The launcher itself is run, on empty CPU tensors, under a driver that stands for a GPU of the
target; each launch is compiled as it would be there and put on record instead of on a GPU. So what
is looked at is exactly what users run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler.compiler import CompiledKernel
from triton.runtime.jit import JITFunction

TARGETS = {
    **{f"sm_{arch}": GPUTarget("cuda", arch, 32) for arch in (80, 89, 90, 100, 120)},
    "gfx942": GPUTarget("hip", "gfx942", 64),
}


class Launch(NamedTuple):
    """One kernel launch."""

    name: str
    kernel: CompiledKernel


class _AbsentDevice:
    """As much of a Triton driver as compiling asks for."""

    def __init__(self, name: str) -> None:
        self.name = name

    def get_current_device(self) -> str:
        return self.name  # compiled kernels are kept by device

    def get_current_stream(self, device: str) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return TARGETS[self.name]


@contextmanager
def recorded_launches(target: str) -> Iterator[list[Launch]]:
    """Within it, Triton kernels are compiled for `target`, a key of `TARGETS`, and not launched.

    Raises:
        Exception: whatever Triton's compiler raises, from the launch.
    """
    launches: list[Launch] = []
    run = JITFunction.run

    def compile_only(
        self: Any, *args: Any, grid: tuple[int, ...], warmup: bool, **options: Any
    ) -> CompiledKernel:
        kernel = run(self, *args, grid=grid, warmup=True, **options)
        launches.append(Launch(self.fn.__name__, kernel))
        return kernel

    driver = triton.runtime.driver
    before = driver._active
    driver.set_active(_AbsentDevice(target))
    try:
        with patch.object(JITFunction, "run", compile_only):
            yield launches
    finally:
        driver._active = before
