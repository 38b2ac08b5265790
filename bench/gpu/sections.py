"""The order of work: each section in a process of its own, its results in the file at once."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench import ROOT
from bench.gpu import report
from bench.gpu.environment import clean_environment
from bench.gpu.exit_steps import CLASSES
from bench.gpu.models import ROWS
from bench.gpu.worker import Job
from eefast.measure import write_whole


class Section(NamedTuple):
    """Items, the most important first."""

    seconds: float  # at most
    items: tuple[str, ...]
    reserve: float | None = None  # see Job


SECTIONS = {
    "costs": Section(45, (
        "environment", "launches", ".item()", "polled flag", "exits in nodes, bindings",
        "exits in nodes, torch", "IF nodes, bindings", "IF nodes, torch",
    )),
    "exit_steps": Section(50, tuple(
        f"{impl}, {head}" for head in CLASSES for impl in ("cuda", "triton", "reference")
    )),
    # All the remaining time. Rows without what torch.compile makes take 12 s.
    "models": Section(1000, tuple(row.name for row in ROWS), reserve=12),
}  # fmt: skip

SILENCE_S = 100.0
"""A worker without progress for so long hangs: torch.compile takes less."""

IMPORTS_S = 8.0
"""What a worker needs before it begins; part of its section's time."""

GRACE_S = 20.0
"""What a worker may take beyond its time: it looks at the clock between two items."""


class Results:
    """All results, written to results.json and results.md after every change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.data: dict[str, Any] = {}

    def put(self, section: str, result: Any) -> None:
        self.data[section] = result
        try:
            text = report.markdown(self.data)
        except Exception as error:  # a failed table must not lose the measurements
            text = f"The report could not be made: {type(error).__name__}: {error}\n"
            self.data["report"] = {"error": text}
        write_whole(self.folder / "results.json", json.dumps(self.data, indent=1) + "\n")
        write_whole(self.folder / "results.md", text)


def start_worker(job: Path, log: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "bench.gpu.worker", str(job)],
        cwd=ROOT, env=clean_environment(), stdout=log, stderr=log,
    )  # fmt: skip


def run_section(
    results: Results,
    section: str,
    items: Sequence[str],
    seconds: float,
    *,
    quick: bool = False,
    reserve: float | None = None,
    start: Callable[[Path, Any], subprocess.Popen[bytes]] = start_worker,
    silence_s: float = SILENCE_S,
) -> None:
    """Have workers do the items; if one dies, another continues without what killed it."""
    begun, left, without = time.monotonic(), list(items), {}
    done: dict[str, Any] = {}
    job, progress = (results.folder / f"{section}.{what}.json" for what in ("job", "progress"))
    log_path = results.folder / f"{section}.log"
    results.put(section, {"items": done})

    def taken(found: dict[str, Any]) -> None:
        if found["done"].keys() - done.keys():
            done.update(found["done"])
            results.put(section, {"items": done})

    with log_path.open("wb") as log:
        while left:
            remaining = seconds - (time.monotonic() - begun)
            if remaining <= 1:
                done.update({item: {"skipped": "no time left"} for item in left})
                break
            progress.unlink(missing_ok=True)
            for_items = max(remaining - IMPORTS_S, 1.0)
            asked = Job(left, for_items, without, quick, str(progress.resolve()), reserve)
            job.write_text(json.dumps(asked._asdict()))
            worker = start(job, log)
            reason = _watch(worker, progress, taken, remaining + GRACE_S, silence_s)
            found = _read(progress)
            taken(found)
            left = [item for item in left if item not in done]
            if not left:
                break
            item, part = found["at"], found["part"]
            if reason == "out of time":
                if item is not None:
                    done[item] = {"skipped": "not done in time"}
                    left.remove(item)
                continue
            said = f"{reason}; {_tail(log_path)}"
            if item is None:  # it never began, and a next one would not either
                done.update({item: {"error": said} for item in left})
                break
            if part is not None and part not in without:
                without[part] = said
            else:
                done[item] = {"error": said}
                left.remove(item)
    results.put(section, {"items": done, "seconds": time.monotonic() - begun})


def _watch(
    worker: subprocess.Popen[bytes],
    progress: Path,
    taken: Callable[[dict[str, Any]], None],
    seconds: float,
    silence_s: float,
) -> str:
    """Wait for a worker, read what it writes, and return how it ended."""
    end, heard, last = time.monotonic() + seconds, time.monotonic(), ""
    try:
        while worker.poll() is None:
            time.sleep(0.2)
            said = progress.read_text() if progress.exists() else ""
            if said != last:
                heard, last = time.monotonic(), said
                taken(json.loads(said))
            if time.monotonic() > end:
                return "out of time"
            if time.monotonic() - heard > silence_s:
                return f"no progress for {silence_s:.0f} s"
    finally:
        if worker.poll() is None:
            worker.kill()
        worker.wait()
    return f"its process ended with status {worker.returncode}"


def _read(progress: Path) -> dict[str, Any]:
    nothing = {"done": {}, "at": None, "part": None}
    return json.loads(progress.read_text()) if progress.exists() else nothing


def _tail(log: Path, characters: int = 600) -> str:
    text = log.read_text(errors="replace").strip()
    return text[-characters:]
