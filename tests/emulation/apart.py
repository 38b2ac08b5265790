"""Runs calls of `prepare` in a process of its own, which may crash and does not import torch."""

from __future__ import annotations

import importlib.util
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

ALIGNMENT = 16
"""Of a vector, in bytes."""

STATE = [
    "score", "prediction", "exit_layer", "logits", "running", "votes", "memory", "control",
]  # fmt: skip
"""What a call changes."""


def run_apart(
    library: Path, calls: list[dict[str, Any]], folder: Path, **environment: str
) -> tuple[list[dict[str, Any]], str]:
    """The calls as they are afterwards, call i with seed i, and the error, or ""."""
    places = [
        {name: value.ctypes.data % ALIGNMENT for name, value in call.items() if _is_array(value)}
        for call in calls
    ]
    (folder / "calls").write_bytes(pickle.dumps((calls, places)))
    try:
        done = subprocess.run(
            [sys.executable, __file__, library, folder / "calls", folder / "results"],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )
    except subprocess.TimeoutExpired as error:
        return [], str(error)
    if done.returncode:
        return [], done.stderr or f"exit status {done.returncode}"
    return pickle.loads((folder / "results").read_bytes()), ""


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray)


def _placed(array: Any, offset: int) -> Any:
    """A copy with the alignment of the original, which pickling does not keep."""
    memory = np.empty(array.nbytes + 2 * ALIGNMENT, np.uint8)
    start = (offset - memory.ctypes.data) % ALIGNMENT
    placed = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    placed[...] = array
    return placed


def _main(library: str, calls: str, results: str) -> None:
    spec = importlib.util.spec_from_file_location("emulation", library)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    done, places = pickle.loads(Path(calls).read_bytes())
    for seed, (call, place) in enumerate(zip(done, places, strict=True)):
        call.update({name: _placed(call[name], offset) for name, offset in place.items()})
        module.exit_step(call, seed)
    Path(results).write_bytes(pickle.dumps(done))


if __name__ == "__main__":
    _main(*sys.argv[1:])
