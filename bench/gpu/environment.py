"""Where and with what the measurements are made."""

from __future__ import annotations

import datetime
import os
import subprocess
from typing import Any

import torch

from bench import ROOT
from bench.gpu.nvml import Nvml
from eefast.measure import host, versions
from eefast.ops import has_cuda
from eefast.ops._native import cuda_runs_on
from eefast.runtime.graph.cuda import chosen_back_end

PACKAGES = ("torch", "triton", "transformers", "cuda-bindings", "nvidia-ml-py", "numpy")


def environment(nvml: Nvml) -> dict[str, Any]:
    """Device, driver, clocks and versions; nothing here costs more than a second."""
    device = torch.device("cuda", torch.cuda.current_device())
    properties = torch.cuda.get_device_properties(device)
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "device": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        **nvml.limits(),
        "clocks_before": nvml.clocks(),
        "cuda": torch.version.cuda,
        "versions": versions(*PACKAGES),
        **host(),
        "exit_step_cuda": "runs here" if cuda_runs_on(device) else
                          "built for other GPUs" if has_cuda() else "not built",
        "if_nodes": _back_end(),
    }  # fmt: skip


def commit() -> str | None:
    """Of this checkout, with a "+" if files differ from it; None where git does not know."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"],
            cwd=ROOT, capture_output=True, text=True, timeout=20,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def clean_environment() -> dict[str, str]:
    """For our subprocesses: Triton compiles, and they import this checkout."""
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    path = [str(ROOT), *filter(None, [kept.get("PYTHONPATH")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(path), "PYTHONUNBUFFERED": "1"}


def _back_end() -> str:
    try:
        return chosen_back_end("auto")
    except RuntimeError as error:
        return f"none: {error}"
