"""Runs calls of `prepare` in a process of its own, which may fall, and knows nothing of torch."""

from __future__ import annotations

import importlib.util
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

STATE = ["score", "prediction", "exit_layer", "logits", "running", "control"]
"""What a call changes."""


def run_apart(
    library: Path, calls: list[dict[str, Any]], folder: Path, **environment: str
) -> tuple[list[dict[str, Any]], str]:
    """The calls as they are afterwards, call i with seed i, and "" or what went wrong."""
    (folder / "calls").write_bytes(pickle.dumps(calls))
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


def _main(library: str, calls: str, results: str) -> None:
    spec = importlib.util.spec_from_file_location("emulation", library)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    done = pickle.loads(Path(calls).read_bytes())
    for seed, call in enumerate(done):
        module.exit_step(call, seed)
    Path(results).write_bytes(pickle.dumps(done))


if __name__ == "__main__":
    _main(*sys.argv[1:])
