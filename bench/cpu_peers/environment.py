"""Where it is measured."""

from __future__ import annotations

import datetime
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from bench.gpu.environment import commit
from eefast.measure import host, versions


def require_packages(*names: str) -> None:
    """End the command where one is missing."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f"{', '.join(missing)} not installed: `make peers`, or the extra [peers]")


def environment(*packages: str) -> dict[str, Any]:
    """Where and with what all this is measured; the packages beside this one and torch."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        **host(),
        "flags": flags(),
        "load": os.getloadavg()[0],  # of the minute before: what else ran here
        "versions": versions("eefast", "torch", "transformers", *packages),
    }


def flags() -> list[str]:
    """The processor's vector instructions, as Linux names them; [] where it does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    names = next((x.split(":", 1)[1].split() for x in lines if x.startswith("flags")), [])
    return [name for name in names if name.startswith(("avx", "amx", "fma"))]
