"""Compiles every variant of the exit step for a target, and says what came out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
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


def sources() -> str:
    """A digest of all files that a page of this depends on: the kernels' and this package's."""
    root = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for pattern in (
        "kernels/*.py",
        "csrc/policy.h",
        "csrc/cuda/exit_step.cu*",
        "csrc/cuda/*.cuh",
        "csrc/cuda/exit_step.h",
        "eefast/ops/step.py",
        "bench/aot/*.py",
    ):
        for path in sorted(root.glob(pattern)):
            digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def kernels(target: str) -> Iterator[Compiled]:
    """All kernels of all implementations for a target, a key of `TARGETS`; those of CUDA where
    nvcc is."""
    yield from triton_kernels(target, variants())
    if target.startswith("sm_") and nvcc.compiler() is not None:
        yield from cuda_kernels(target)


def cuda_kernels(target: str) -> Iterator[Compiled]:
    """The CUDA kernels: for all sizes, with or without a pooler."""
    for name, resources in sorted(nvcc.kernels(target).items()):
        yield Compiled("cuda", f"{name}, any size up to {CUDA_ROWS} rows", "exit_step", resources)


def triton_kernels(target: str, some: Iterable[Variant]) -> Iterator[Compiled]:
    """The Triton kernels of some variants, in the order in which they are launched.

    Args:
        target: a key of `TARGETS`.
        some: of `variants()`.
    """
    with_pdl = target.startswith("sm_") and TARGETS[target].arch >= 90
    for variant in some:
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
