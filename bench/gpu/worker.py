"""The process in which a section is measured: `python -m bench.gpu.worker JOB`.

A kernel that fails can kill its process. So each section runs in a process of its own, which writes
down after every step what it has found and where it is.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bench.gpu import costs, exit_steps, models, nodes
from bench.gpu.environment import environment
from bench.gpu.nvml import Nvml
from bench.gpu.timing import Gpu
from bench.shapes import SHAPES, make_model
from eefast import MultiExitModel
from eefast.measure import write_whole
from eefast.ops import implementation
from eefast.runtime.graph.cuda import CudaGraphDevice

GPU_IS_LOST = 3
"""Exit status after an error that makes the GPU unusable to this process."""


class NotThereError(Exception):
    """What an item needs is not available; this is not a failure."""


class Job(NamedTuple):
    """What a worker is asked for."""

    items: list[str]
    seconds: float
    without: dict[str, str]  # variants to skip, and why
    quick: bool
    progress: str  # file
    # Seconds kept for each later item: the current one may take the rest. None: equal shares.
    reserve: float | None = None


class Progress:
    """A file that always says, completely, what is done and what is being done."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.data: dict[str, Any] = {"done": {}, "at": None, "part": None}

    def at(self, item: str | None, part: str | None = None) -> None:
        self.data |= {"at": item, "part": part}
        write_whole(self._path, json.dumps(self.data))

    def done(self, item: str, result: Any) -> None:
        self.data["done"][item] = result
        self.at(None)


def run(
    job: Job,
    items: dict[str, Callable[[float, Callable[[str | None], None]], Any]],
    usable: Callable[[], None],
) -> int:
    """Do the items of a job, as far as time allows; the exit status.

    Args:
        items: by name; called with the seconds it may take, and with a function that records which
            part of the item is being done.
        usable: raises if the GPU is no longer usable.
    """
    progress, start = Progress(Path(job.progress)), time.monotonic()
    for number, name in enumerate(job.items):
        left = job.seconds - (time.monotonic() - start)
        if left <= 0:
            progress.done(name, {"skipped": "no time left"})
            continue
        later = len(job.items) - number - 1
        share = left / (later + 1)
        if job.reserve is not None:
            share = max(left - job.reserve * later, share)
        progress.at(name)
        try:
            result = items[name](share, lambda part, name=name: progress.at(name, part))
        except NotThereError as reason:
            result = {"skipped": str(reason)}
        except Exception as error:
            result = {"error": f"{type(error).__name__}: {error}"}
            try:
                usable()
            except RuntimeError:
                # The file still says where it was, so that the next worker can skip that.
                print(result["error"], file=sys.stderr)
                return GPU_IS_LOST
        progress.done(name, result)
    return 0


def items_for(gpu: Gpu, job: Job) -> dict[str, Callable[..., Any]]:
    """All there is to measure, by the names in `bench.gpu.sections`."""
    here = torch.device("cuda", torch.cuda.current_device())
    dtype, nvml = models.DTYPE, Nvml()

    def graphs(back_end: Any = "auto") -> CudaGraphDevice:
        try:
            return CudaGraphDevice(here, back_end)
        except RuntimeError as error:
            raise NotThereError(str(error)) from None

    def exits(impl: Any, head: str) -> Callable[..., Any]:
        def item(seconds: float, at: Any) -> Any:
            try:
                implementation(impl, here, dtype)
            except RuntimeError as error:
                raise NotThereError(str(error)) from None
            try:
                in_graphs = graphs()
            except NotThereError:
                in_graphs = None
            return exit_steps.exit_steps(gpu, in_graphs, impl, head, seconds)

        return item

    def exit_nodes(back_end: str) -> Callable[..., Any]:
        def item(seconds: float, at: Any) -> Any:
            return nodes.exit_nodes(gpu, graphs(back_end), dtype, seconds)

        return item

    expected_s: dict[str, float] = {}
    made: dict[str, MultiExitModel] = {}

    def row(row: models.Row) -> Callable[..., Any]:
        def item(seconds: float, at: Any) -> Any:
            if row.model not in made:
                made[row.model] = make_model(SHAPES[row.model], here, dtype)
            return models.measure(
                gpu, made[row.model], row, seconds=seconds, without=job.without, at=at, nvml=nvml,
                expected_s=expected_s,
                names=[n for n in models.ALL if not (job.quick and models.compiles(n))],
                rounds=(1, 3) if job.quick else (3, 40),
            )  # fmt: skip

        return item

    return {
        "environment": lambda s, at: environment(nvml),
        "launches": lambda s, at: costs.launches(gpu, graphs(), s),
        ".item()": lambda s, at: costs.item(gpu, s),
        "polled flag": lambda s, at: costs.polled_flag(gpu, s),
        "IF nodes, torch": lambda s, at: nodes.if_nodes(gpu, graphs("torch"), False, s),
        "IF nodes, bindings": lambda s, at: nodes.if_nodes(gpu, graphs("bindings"), True, s),
        "exits in nodes, torch": exit_nodes("torch"),
        "exits in nodes, bindings": exit_nodes("bindings"),
        **{
            f"{impl}, {head}": exits(impl, head)
            for impl in ("cuda", "triton", "reference") for head in exit_steps.CLASSES
        },
        **{r.name: row(r) for r in models.ROWS},
    }  # fmt: skip


if __name__ == "__main__":
    asked = Job(**json.loads(Path(sys.argv[1]).read_text()))
    sys.exit(run(asked, items_for(Gpu(), asked), torch.cuda.synchronize))
