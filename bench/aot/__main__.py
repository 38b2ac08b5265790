"""Compiles the exit step's kernels ahead of time for GPUs that are not here, and prints a table.

    python -m bench.aot > docs/aot.md

Exits with 1 if a kernel spills registers or uses local memory; a kernel that does not compile
raises. Nothing is run: registers, shared memory and instructions are read off the binaries, and
the roofline times are computed from published bandwidths.
"""

from __future__ import annotations

import os
import sys

from tqdm import tqdm

from bench.aot import nvcc
from bench.aot.compile import Compiled, compilers, kernels, sources
from bench.aot.record import TARGETS
from bench.aot.variants import BANDWIDTHS, variants
from eefast.ops.implementations import CUDA_ROWS


def main() -> int:
    """Compile everything, print the table, and return the exit status."""
    compiled: dict[str, list[Compiled]] = {
        target: list(tqdm(kernels(target), target, unit=" kernels")) for target in TARGETS
    }
    print(markdown(compiled))
    if nvcc.compiler() is None:
        print("There is no nvcc: the CUDA kernel was not compiled.", file=sys.stderr)
    spilled = [
        f"{target}: {kernel.variant}: {kernel.kernel}"
        for target, kernels_of_target in compiled.items()
        for kernel in kernels_of_target
        if kernel.resources.local_bytes
    ]
    if spilled:
        print("These kernels use local memory:", *spilled, sep="\n  ", file=sys.stderr)
    return 1 if spilled else 0


def markdown(compiled: dict[str, list[Compiled]]) -> str:
    """Two tables: what each exit moves and launches, and what each kernel takes."""
    any_target = next(iter(compiled.values()))
    devices = list(BANDWIDTHS)
    lines = [
        "# The exit step, compiled ahead of time",
        "",
        f"{compilers()}, sources {sources()}. Made by `python -m bench.aot > docs/aot.md`. No GPU "
        "was there: **nothing here is a measurement of time**.",
        "",
        "## What an exit moves and launches",
        "",
        "Bytes that must pass through memory once, and the time that takes at the published "
        f"bandwidth ({', '.join(f'{d} {BANDWIDTHS[d] / 1e9:.0f} GB/s' for d in devices)}): "
        "computed, for weights that come from memory each time, without launches or latency.",
        "",
        "| exit | launches: triton | cuda | kB | " + " | ".join(f"{d}, us" for d in devices) + " |",
        "|---" * (4 + len(devices)) + "|",
    ]
    for variant in variants():
        launches = sum(c.impl == "triton" and c.variant == variant.name for c in any_target)
        times = [f"{variant.roofline_us(device):.2g}" for device in devices]
        cuda = "1" if variant.batch <= CUDA_ROWS else ""
        kilobytes = f"{variant.bytes_moved / 1000:,.1f}"
        lines.append(
            "| " + " | ".join([variant.name, str(launches), cuda, kilobytes, *times]) + " |"
        )
    lines += [
        "",
        "## What a kernel takes",
        "",
        "Registers per thread / shared memory per block in bytes / instructions. Local memory, "
        "where spilled registers go, is "
        + (
            "0 everywhere."
            if not any(c.resources.local_bytes for cs in compiled.values() for c in cs)
            else "marked **local**."
        ),
        "",
        "| kernel | variant | " + " | ".join(compiled) + " |",
        "|---" * (2 + len(compiled)) + "|",
    ]
    cells: dict[tuple[str, str, str], dict[str, str]] = {}
    for target, kernels_of_target in compiled.items():
        for impl, variant_name, kernel, r in kernels_of_target:
            cells.setdefault((impl, kernel, variant_name), {})[target] = str(r)
    for (impl, kernel, variant_name), of_target in cells.items():
        row = [f"{impl} {kernel}", variant_name, *(of_target.get(t, "") for t in compiled)]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    if os.environ.get("TRITON_INTERPRET") == "1":
        sys.exit("TRITON_INTERPRET=1 is set: nothing would be compiled")
    sys.exit(main())
