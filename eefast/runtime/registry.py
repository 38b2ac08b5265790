"""The runtimes by name, and which one runs where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch

from eefast.runtime.direct import DirectRuntime
from eefast.runtime.graph import GraphRuntime
from eefast.runtime.protocol import Runtime
from eefast.runtime.runahead import RunAheadRuntime
from eefast.runtime.sync import SyncRuntime

RuntimeName = Literal["auto", "direct", "sync", "runahead", "graph"]

RUNTIMES: dict[str, type[Runtime]] = {
    "direct": DirectRuntime,
    "sync": SyncRuntime,
    "runahead": RunAheadRuntime,
    "graph": GraphRuntime,
}
_DEFAULT_RUNTIME = {"cpu": "direct", "cuda": "runahead"}


def runtime_for(runtime: str, device: torch.device, options: Mapping[str, Any]) -> str:
    """The name of the runtime, if there is one that fits the device and has these options."""
    if runtime == "auto":
        if device.type not in _DEFAULT_RUNTIME:
            raise ValueError(
                f"there is no runtime for device {device} yet; there is one for "
                f"{sorted(_DEFAULT_RUNTIME)}"
            )
        runtime = _DEFAULT_RUNTIME[device.type]
    if runtime not in RUNTIMES:
        raise ValueError(f"runtime must be 'auto' or one of {sorted(RUNTIMES)}, got {runtime!r}")
    wanted, known = RUNTIMES[runtime].device_type, RUNTIMES[runtime].options
    if wanted is not None and device.type != wanted:
        raise ValueError(f"runtime {runtime!r} runs on {wanted!r}, the model is on {device}")
    unknown = sorted(options.keys() - known)
    if unknown:
        has = sorted(known) or "none"
        raise TypeError(f"options: runtime {runtime!r} has no {unknown}; it has {has}")
    return runtime
