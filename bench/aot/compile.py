"""Compiles every variant of the exit step for a target, and says what came out."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from typing import NamedTuple

import torch

from bench.aot import nvcc
from bench.aot.record import TARGETS, recorded_launches
from bench.aot.resources import Resources, of_amdgcn, of_cubin
from bench.aot.variants import Variant, variants
from eefast.kernels import launch_exit_step
from eefast.ops.implementations import CUDA_ROWS


class Compiled(NamedTuple):
    """One kernel of one variant."""

    impl: str
    variant: str
    kernel: str
    resources: Resources


def compilers() -> str:
    """What everything here is compiled with."""
    return f"Triton {version('triton')}, nvcc {nvcc.version() if nvcc.compiler() else 'absent'}"


def kernels(target: str) -> Iterator[Compiled]:
    """All kernels of all implementations for a target, a key of `TARGETS`; those of CUDA where
    nvcc is."""
    yield from triton_kernels(target)
    if target.startswith("sm_") and nvcc.compiler() is not None:
        yield from cuda_kernels(target)


def cuda_kernels(target: str) -> Iterator[Compiled]:
    """The CUDA kernels: for all sizes, with or without a pooler."""
    for name, resources in sorted(nvcc.kernels(target).items()):
        yield Compiled("cuda", f"{name}, any size up to {CUDA_ROWS} rows", "exit_step", resources)


def triton_kernels(target: str) -> Iterator[Compiled]:
    """The Triton kernels of all variants, in the order in which they are launched.

    Args:
        target: a key of `TARGETS`.
    """
    with_pdl = target.startswith("sm_") and TARGETS[target].arch >= 90
    for variant in variants():
        yield from _launched(target, variant, pdl=False)
        if with_pdl and variant.head == "pooler" and variant.dtype == torch.bfloat16:
            yield from _launched(target, variant, pdl=True)


def _launched(target: str, variant: Variant, pdl: bool) -> Iterator[Compiled]:
    with recorded_launches(target) as launches:
        launch_exit_step(*variant.arguments(), pdl=pdl)
    for launch in launches:
        asm, shared = launch.kernel.asm, launch.kernel.metadata.shared
        if target.startswith("sm_"):
            (resources,) = of_cubin(asm["cubin"], shared).values()
        else:
            resources = of_amdgcn(asm["amdgcn"], shared)
        name = variant.name + (", PDL" if pdl else "")
        yield Compiled("triton", name, launch.name, resources)
