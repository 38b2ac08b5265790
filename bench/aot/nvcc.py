"""The CUDA kernels, compiled by nvcc for GPUs that are not here."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from bench.aot.resources import Resources, of_cubin

_SOURCE = Path(__file__).parents[2] / "csrc" / "cuda" / "exit_step.cu"
_DTYPES = {"f": "float32", "6__half": "float16", "13__nv_bfloat16": "bfloat16"}


@cache
def compiler() -> Path | None:
    """nvcc, or None where there is none. CUDA_HOME tells where to look, as in setup.py."""
    nvcc = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin" / "nvcc"
    return nvcc if nvcc.exists() else None


def version() -> str:
    """Such as "13.0"."""
    nvcc = compiler()
    assert nvcc is not None
    text = subprocess.run([nvcc, "--version"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"release (\d+\.\d+)", text)
    return found[1] if found else "unknown"


def kernels(target: str) -> dict[str, Resources]:
    """The exit step's two kernels of each precision for a target such as "sm_90", by its name; that
    of policies which accumulate or score has "extended" behind it.

    Raises:
        RuntimeError: nvcc refuses the source; the message is nvcc's.
    """
    nvcc = compiler()
    assert nvcc is not None
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "exit_step.cubin"
        done = subprocess.run(
            [nvcc, "-cubin", f"-arch={target}", "-O3", "-std=c++17", _SOURCE, "-o", cubin],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{_SOURCE.name} does not compile for {target}:\n{done.stderr}")
        found = of_cubin(cubin.read_bytes())
    # exit_step<Element, kExtended>, mangled.
    return {
        _DTYPES[element] + (", extended" if int(extended) else ""): resources
        for name, resources in found.items()
        for element, extended in re.findall(r"9exit_stepI(\w+?)Lb(\d)E", name)
    }
