"""docs/cpu_peers.md from docs/cpu_peers.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bench.cpu_peers.engines import OURS, PEER
from eefast.measure import markdown_table

TARGETS: Mapping[str, Mapping[int, float]] = {
    "float32": {16: 0.75, 32: 0.88, 64: 0.90, 128: 0.92},
    "bfloat16": {16: 0.70, 32: 0.78, 64: 0.82, 128: 0.92},
    "int8": {16: 0.65, 32: 0.68, 64: 0.72, 128: 0.80},
}
"""At most this ratio to the best peer, by length."""

Cell = Mapping[str, Any]

_TEXT = """\
# Full depth on a CPU, against the engines that are deployed there

Written by `python -m bench.cpu_peers`. One text at a time (batch 1), all layers, random weights,
one classifier with BERT's pooler: all engines compute the same function, and were compared on the
same texts before they were timed. Milliseconds of a call: the median of {rounds} rounds, and from
the lowest to the highest. Every engine has a process of its own; in each round all are asked
once, in an order drawn anew, and whoever is not asked is stopped. Of the ways in which a peer can
be set up, the fastest at each length is taken; they are named below. torch.compile has frozen
weights and is compiled for each length alone.

A ratio is eefast's time over that of the best peer of the same precision: the median over the
rounds of the ratio in one round, with the lowest and the highest. Below 1 eefast is faster. Where a
target is missed the ratio is **bold**.
"""


class Ratio(NamedTuple):
    """Our time over the best peer's, of one cell and precision."""

    ours: str
    peer: str
    ratio: float
    low: float
    high: float
    target: float | None  # None: there is none

    @property
    def missed(self) -> bool:
        return self.target is not None and self.ratio > self.target


def ratio(cell: Cell, precision: str) -> Ratio | None:
    """Ours against the peer with the smallest median; None if one of the two has no times."""
    timed = {
        name: one
        for name, one in cell["engines"].items()
        if one["precision"] == precision and "ms" in one
    }
    ours = next((name for name, one in timed.items() if one["role"] == OURS), None)
    peers = [name for name, one in timed.items() if one["role"] == PEER]
    if ours is None or not peers:
        return None
    peer = min(peers, key=lambda name: float(np.median(timed[name]["ms"])))
    of_rounds = np.divide(timed[ours]["ms"], timed[peer]["ms"])
    target = TARGETS[precision].get(cell["length"])
    low, median, high = np.percentile(of_rounds, [0, 50, 100]).tolist()
    return Ratio(ours, peer, median, low, high, target)


def markdown(results: Mapping[str, Any]) -> str:
    """The whole page, of the cells that there are."""
    parts = [_TEXT.format(rounds=results["rounds"]), environment_line(results["environment"])]
    for shape in dict.fromkeys(cell["shape"] for cell in results["cells"]):
        cells = [cell for cell in results["cells"] if cell["shape"] == shape]
        parts += [f"\n## {shape}\n", _ratios(cells), "", _times(cells), ""]
        parts += _ways(cells)
        failed = list(_failed(cells))
        if failed:
            parts += ["\nWithout times:\n", *failed]
    return "\n".join(parts) + "\n"


def environment_line(where: Mapping[str, Any]) -> str:
    """Where and with what something was measured."""
    versions = ", ".join(
        f"{name} {version or 'none'}" for name, version in where["versions"].items()
    )
    return (
        f"{where['cpu']}, {where['cpu_count']} cores, {where['threads']} threads; instructions: "
        f"{' '.join(where['flags'])}. Load before: {where['load']:.2f}. {versions}. Commit "
        f"{where['commit'] or 'unknown'}, {where['date']}."
    )


def _ratios(cells: Sequence[Cell]) -> str:
    rows = []
    for precision in TARGETS:
        for cell in cells:
            found = ratio(cell, precision)
            target = TARGETS[precision].get(cell["length"])
            row = [precision, str(cell["length"])]
            if found is None:
                row += ["-", "-", "-", "-"]
            else:
                engines, shown = cell["engines"], f"{found.ratio:.2f}"
                row += [
                    f"{np.median(engines[found.ours]['ms']):.2f}",
                    f"{found.peer}: {np.median(engines[found.peer]['ms']):.2f}",
                    f"**{shown}**" if found.missed else shown,
                    f"{found.low:.2f} to {found.high:.2f}",
                ]
            rows.append([*row, "-" if target is None else f"{target:.2f}"])
    columns = ("precision", "tokens", "eefast ms", "best peer ms", "ratio", "of rounds", "target")
    return markdown_table(columns, rows)


def _times(cells: Sequence[Cell]) -> str:
    rows = [
        [name, *(_spread(cell["engines"].get(name, {}).get("ms")) for cell in cells)]
        for name in _names(cells)
    ]
    return markdown_table(["ms at tokens", *(str(cell["length"]) for cell in cells)], rows)


def _spread(ms: Sequence[float] | None) -> str:
    return f"{np.median(ms):.2f} ({min(ms):.2f} to {max(ms):.2f})" if ms else "-"


def _ways(cells: Sequence[Cell]) -> list[str]:
    """How each engine was set up, and how far its answers are from the model's."""
    lines = ["Set up as, and the greatest difference of a logit:\n"]
    for name in _names(cells):
        ones = {cell["length"]: cell["engines"][name] for cell in cells if name in cell["engines"]}
        apart = [one["differs_by"] for one in ones.values() if "differs_by" in one]
        if not apart:
            continue
        lengths: dict[str, list[str]] = {}
        for length, one in ones.items():
            if one.get("way"):
                lengths.setdefault(one["way"], []).append(str(length))
        ways = [f"{way} (at {', '.join(at)})" for way, at in lengths.items()]
        lines.append(f"- {name}: {'; '.join([*ways, f'{max(apart):.2g}'])}")
    return lines


def _failed(cells: Sequence[Cell]) -> Iterable[str]:
    """One line for each engine and reason."""
    lengths: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        for name, one in cell["engines"].items():
            if "error" in one:
                lengths.setdefault((name, one["error"]), []).append(str(cell["length"]))
    for (name, error), at in lengths.items():
        yield f"- {name} at {', '.join(at)} tokens: {error}"


def _names(cells: Sequence[Cell]) -> list[str]:
    return list(dict.fromkeys(name for cell in cells for name in cell["engines"]))
