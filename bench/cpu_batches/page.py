"""docs/cpu_batches.md from docs/cpu_batches.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bench.cpu_batches import SIZES
from bench.cpu_peers.page import environment_line
from bench.cpu_texts import CUT, EXITS, NEVER, PEERS, TASK
from eefast.measure import markdown_table

_TEXT = """\
# Batches without padding, against OpenVINO

Written by `python -m bench.cpu_batches`. MiniLM with six exits, trained by `make demo` on {task}:
the first {texts} test texts in their order, in batches padded to their longest text. OpenVINO
computes the padding; packed layers leave it out, and evict texts that have exited. For OpenVINO the
faster counts of one request on all threads and several at once. {exits} and "{cut}" are as in
[cpu_texts.md](cpu_texts.md).

Every engine has a process of its own, with {threads} threads. In each of {rounds} rounds every row
is asked once, in an order drawn anew, and whoever is not asked is stopped. Texts per second are of
the median round. *Against the best peer* is throughput over that of the faster OpenVINO at full
depth with the same size: the median over the rounds, from the lowest to the highest. *Over full
depth* is throughput over that of the same layers at full depth, over the layer speed-up: 1 is what
exits without any cost would give. *Differ* counts texts whose class or exit is another than alone.
"""


def markdown(results: Mapping[str, Any]) -> str:
    """The whole page."""
    lines = [
        _TEXT.format(
            task=TASK,
            texts=results["texts"],
            exits=EXITS,
            cut=CUT,
            threads=results["environment"]["threads"],
            rounds=results["rounds"],
        ),
        environment_line(results["environment"]),
    ]
    for place, size in enumerate(SIZES):
        table = [_cells(results, one, place) for one in results["engines"]]
        lines += ["", f"## Batches of {size}", "", markdown_table(_COLUMNS, table)]
    ways = {one["engine"]: one["way"] for one in results["engines"]}
    lines += ["", "Set up as:", "", *(f"- {name}: {way}" for name, way in ways.items()), ""]
    return "\n".join(lines)


_COLUMNS = (
    "engine", "policy", "texts per second", "against the best peer", "layer speed-up",
    "over full depth", "differ",
)  # fmt: skip


def _cells(results: Mapping[str, Any], one: Mapping[str, Any], place: int) -> list[str]:
    size = SIZES[place]
    by_name = {(e["engine"], e["policy"]): e for e in results["engines"]}
    peers = [by_name[name, NEVER] for name in PEERS]
    best = min(peers, key=lambda peer: float(np.median(_seconds(peer, size))))
    full = by_name[one["engine"], NEVER]
    ratios = _seconds(best, size) / _seconds(one, size)
    speedup = full["layers"] / one["layers"]
    over = np.median(_seconds(full, size) / _seconds(one, size)) / speedup
    return [
        one["engine"],
        one["policy"],
        f"{results['texts'] / np.median(_seconds(one, size)):.0f}",
        f"{np.median(ratios):.2f}x ({ratios.min():.2f} to {ratios.max():.2f})",
        f"{speedup:.2f}x",
        f"{over:.2f}",
        str(one["differ"][place]),
    ]


def _seconds(one: Mapping[str, Any], size: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array(one["seconds"][str(size)])
