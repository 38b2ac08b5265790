"""One shape and length: all engines set up, compared, and timed in turn."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

from torch import Tensor
from tqdm.auto import tqdm

from bench.cpu_peers.engines import ENGINES, JUDGE, Precision, Setup
from bench.cpu_peers.fixed_length import fixed_length
from bench.cpu_peers.worker import EngineError, Worker
from eefast.measure import take_turns

MAY_DIFFER: Mapping[Precision, float] = {"float32": 1e-3, "bfloat16": 2e-2, "int8": 1e-1}
"""In logits, which differ by about 0.1 from text to text."""


def measured(setup: Setup, failed: Mapping[str, str], rounds: int) -> dict[str, Any]:
    """Figures of every engine, or why there are none; all of the process's own are ended.

    Args:
        setup: the shape and length.
        failed: exports that failed, and why.
        rounds: turns of each engine; one more comes first and does not count.
    """
    found: dict[str, dict[str, Any]] = {
        name: {"precision": engine.precision, "role": engine.role}
        for name, engine in ENGINES.items()
    }
    workers: dict[str, Worker] = {}
    title = f"{setup.shape}, {setup.length} tokens"
    with ExitStack() as ends:
        for name, engine in tqdm(ENGINES.items(), desc=f"{title}: setting up", disable=None):
            try:
                if engine.export in failed:
                    raise EngineError(f"its export: {failed[engine.export]}")
                workers[name] = Worker(partial(fixed_length, name, setup))
            except EngineError as error:
                found[name]["error"] = _one_line(error)
            else:
                ends.callback(workers[name].close)
                found[name]["way"] = workers[name].ready.way
        _compare({name: worker.ready.logits for name, worker in workers.items()}, found)
        timed = {
            name: partial(_turn, worker, found[name])
            for name, worker in workers.items()
            if "error" not in found[name]
        }
        print(f"{title}: timing", file=sys.stderr, flush=True)
        times = take_turns(timed, {"": _ms}, (None,), rounds=(rounds, rounds), progress=True)[""]
    for name, ms in times.items():
        if "error" not in found[name]:
            found[name]["ms"] = [round(float(x), 4) for x in ms[:, 0]]
    return {"shape": setup.shape, "length": setup.length, "engines": found}


def _compare(logits: Mapping[str, Tensor], found: Mapping[str, dict[str, Any]]) -> None:
    """Write down how far logits are from the judge's, and as an error what is too far."""
    if JUDGE not in logits:
        for one in found.values():
            one.setdefault("error", f"there is no {JUDGE} to compare it with")
        return
    for name, of_one in logits.items():
        one = found[name]
        apart = float((of_one - logits[JUDGE]).abs().max())
        one["differs_by"] = float(f"{apart:.3g}")
        if not apart <= MAY_DIFFER[one["precision"]]:
            one["error"] = f"logits differ by {apart:.3g} from those of {JUDGE}"


def _turn(worker: Worker, of_one: dict[str, Any], step: None) -> Callable[[], float]:
    def turn() -> float:
        if "error" not in of_one:
            try:
                answer: float = worker.turn()
                return answer
            except EngineError as error:
                of_one["error"] = _one_line(error)
        return math.nan

    return turn


def _ms(turn: Callable[[], float]) -> float:
    return turn()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
