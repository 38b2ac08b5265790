"""Compiles every variant of the exit step for a target, and says what came out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from bench.aot.record import TARGETS, recorded_launches
from bench.aot.resources import Resources, of_amdgcn, of_cubin
from bench.aot.variants import Variant, variants
from eefast.kernels import launch_exit_step


class Compiled(NamedTuple):
    """One kernel of one variant."""

    impl: str
    variant: str
    kernel: str
    grid: tuple[int, ...]
    resources: Resources


def kernels(target: str) -> Iterator[Compiled]:
    """All kernels of all implementations for a target, a key of `TARGETS`."""
    yield from triton_kernels(target)


def triton_kernels(target: str) -> Iterator[Compiled]:
    """The Triton kernels of all variants, in the order in which they are launched.

    Args:
        target: a key of `TARGETS`.
    """
    with_pdl = target.startswith("sm_") and TARGETS[target].arch >= 90
    for variant in variants():
        yield from _launched(target, variant, pdl=False)
        if with_pdl and variant.head == "pooler" and variant.batch > 1:
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
        yield Compiled("triton", name, launch.name, launch.grid, resources)
