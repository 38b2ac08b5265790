"""An engine that answers random texts of one length, in its process."""

from __future__ import annotations

import gc
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.cpu_peers.engines import ENGINES, Run, Setup
from bench.cpu_peers.models import texts
from bench.cpu_peers.worker import Engine
from eefast.measure import time_interleaved

SECONDS = 0.5
"""For the calls of one turn."""


class Ready(NamedTuple):
    """What an engine says when it is set up."""

    way: str
    logits: Tensor  # (texts, classes), float32


def fixed_length(engine: str, setup: Setup) -> Engine:
    """In a turn it says the milliseconds of a call, the median of `SECONDS`."""
    given: list[dict[str, Any]] = [*texts(setup.length)]
    if ENGINES[engine].export:
        given = [{name: ids.numpy() for name, ids in text.items()} for text in given]
    way, run, rounds = _fastest(engine, setup, given)
    logits = [torch.as_tensor(run(**text)).float() for text in given]

    def turn(_: None) -> float:
        return time_interleaved({"": run}, given, rounds=rounds)[""].p50_ms

    return Engine(Ready(way, torch.cat(logits)), turn)


def _fastest(engine: str, setup: Setup, given: list[dict[str, Any]]) -> tuple[str, Run, int]:
    """The way that is fastest here, by name, and how many rounds of all texts fill a turn."""
    ways = ENGINES[engine].ways(setup)
    times = time_interleaved(ways, given, rounds=5)
    way = min(ways, key=lambda name: times[name].p50_ms)
    run = ways[way]
    del ways
    gc.collect()
    return way, run, max(3, round(SECONDS * 1e3 / times[way].total_ms))
