"""Where and with what figures were made."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch


def processor() -> str:
    """The processor's name; "" where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), "")


def host() -> dict[str, Any]:
    """The processor, its number of cores, and the threads that torch uses."""
    return {"threads": torch.get_num_threads(), "cpu": processor(), "cpu_count": os.cpu_count()}


def versions(*packages: str) -> dict[str, str | None]:
    """The versions of Python and of `packages`; None: not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found
