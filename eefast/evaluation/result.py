"""`Evaluation`: what `evaluate` found, as JSON, as tables for a terminal and as a picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eefast.measure import Curve, draw_curves, terminal_table

if TYPE_CHECKING:
    from rich.table import Table

NEVER = "full depth"
TRANSFORMERS = "transformers"
"""Names of the rows of full depth, in eefast and in transformers."""


@dataclass(frozen=True)
class Timing:
    """Wall clock on the timed texts, one at a time; speed-ups are ratios of total times."""

    layer_speedup: float  # on these texts
    speedup_vs_never: float  # over full depth in eefast
    speedup_vs_transformers: float  # over full depth in transformers
    p50_ms: float
    p90_ms: float
    as_simulated: int  # on how many texts it exited (transformers: answered) as on the trace


@dataclass(frozen=True)
class Row:
    """One policy, or full depth in transformers.

    F1 is that of the second class if there are two classes, otherwise the mean over the classes
    (macro). F1 and Matthews correlation are None where the data hold one class only.
    """

    name: str
    setting: dict[str, Any] | None  # `Policy.to_dict`; None: transformers
    accuracy: float
    f1: float | None
    matthews: float | None
    layer_speedup: float
    cost_speedup: float
    exit_histogram: list[int]  # of all texts, by exit
    timing: Timing


@dataclass(frozen=True)
class Evaluation:
    """Rows: the policies that were asked for, every exit but the last, and full depth twice."""

    classes: list[str]
    samples: int  # texts that were judged
    timed: int  # texts that were timed, of these
    max_length: int | None  # in tokens; None: any
    exit_layers: tuple[int, ...]
    exit_accuracies: list[float]  # of each exit for all texts
    policies: list[str]  # names of the rows that were asked for
    rows: list[Row]
    environment: dict[str, Any]

    def __getitem__(self, name: str) -> Row:
        """The row of that name."""
        return next(row for row in self.rows if row.name == name)

    def to_dict(self) -> dict[str, Any]:
        """All figures, ready for JSON."""
        return dataclasses.asdict(self)

    def tables(self) -> list[Table]:
        """For a terminal of 80 columns: quality, exits and latency."""
        f1 = f"F1 {self.classes[1]}" if len(self.classes) == 2 else "macro-F1"
        quality = [
            [
                row.name,
                f"{row.accuracy:.3f}",
                *("" if x is None else f"{x:.3f}" for x in (row.f1, row.matthews)),
                f"{row.layer_speedup:.2f}x",
                f"{row.cost_speedup:.2f}x",
            ]
            for row in self.rows
        ]
        return [
            terminal_table(
                f"{self.samples} texts: what is answered, and after how many layers",
                ["policy", "accuracy", f1, "Matthews", "layers", "cost"],
                quality,
            ),
            *self.exit_table(),
            self.latency_table([row.name for row in self.rows]),
        ]

    def exit_table(self) -> list[Table]:
        """Where the policies' samples exit; none without policies."""
        if not self.policies:
            return []
        return [
            terminal_table(
                "% of the texts that exit after layer",
                ["policy", "".join(f"{layer:>4}" for layer in self.exit_layers)],
                [
                    [name, "".join(f"{100 * n / self.samples:4.0f}" for n in histogram)]
                    for name, histogram in (
                        (name, self[name].exit_histogram) for name in self.policies
                    )
                ],
            )
        ]

    def latency_table(self, names: list[str]) -> Table:
        """How long some of the rows take."""
        return terminal_table(
            f"latency: batch 1, {self.timed} texts, variants in turn",
            ["policy", "layers", "vs full depth", "vs transformers", "p50 ms", "p90 ms"],
            [[name, *speed_cells(dataclasses.asdict(self[name].timing))] for name in names],
        )

    def draw(self, path: Path, title: str) -> None:
        """Accuracy over layer speed-up into a PNG file: fixed depth, and a mark per policy."""
        marks = {
            name: Curve([], {name: (self[name].layer_speedup, self[name].accuracy)})
            for name in self.policies
        }
        draw_trade_off(path, marks, self.exit_layers, self.exit_accuracies, title=title)


def speed_cells(timing: Mapping[str, Any]) -> list[str]:
    """Of a `Timing` as a dictionary: three speed-ups over layers and clocks, p50 and p90 in ms."""
    speedups = ("layer_speedup", "speedup_vs_never", "speedup_vs_transformers")
    times = ("p50_ms", "p90_ms")
    return [*(f"{timing[k]:.2f}x" for k in speedups), *(f"{timing[k]:.2f}" for k in times)]


def draw_trade_off(
    path: Path,
    curves: Mapping[str, Curve],
    exit_layers: tuple[int, ...],
    exit_accuracies: list[float],
    *,
    title: str,
    note: str = "",
) -> None:
    """Accuracy over layer speed-up: fixed depth at every exit, and curves and marks beside it.

    Args:
        path: of the PNG file.
        curves: by name.
        exit_layers: of the model.
        exit_accuracies: of each exit for all samples.
        title: above the plot.
        note: below the plot.
    """
    last = exit_accuracies[-1]
    exits = zip(exit_layers, exit_accuracies, strict=True)
    fixed = sorted((exit_layers[-1] / layer, accuracy) for layer, accuracy in exits)
    curves = {"fixed depth (each exit)": Curve(fixed), **curves}
    # Settings far below the last exit are of no use; what was chosen is always shown.
    shown = [mark for curve in curves.values() for mark in curve.marks.values()]
    points = [point for curve in curves.values() for point in curve.points]
    shown += [point for point in points if point[1] >= last - 0.05]
    draw_curves(
        path,
        curves,
        title=title,
        x="layer speed-up",
        y="accuracy",
        x_limits=(0.9, max(1.1 * x for x, _ in shown)),
        y_limits=(min(last - 0.05, *(y for _, y in shown)) - 0.01, max(y for _, y in shown) + 0.01),
        level=("last exit", last),
        note=note,
    )
