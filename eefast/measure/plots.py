"""Plots of figures, into files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from eefast.files import whole

Point = tuple[float, float]


class Curve(NamedTuple):
    """A line through `points`, and marks of the same colour."""

    points: Iterable[Point]
    marks: Iterable[Point] = ()


def draw_curves(
    path: Path,
    curves: Mapping[str, Curve],
    *,
    title: str,
    x: str,
    y: str,
    x_limits: Point,
    y_limits: Point,
    level: tuple[str, float] | None = None,
) -> None:
    """Draw curves into a PNG file.

    Args:
        path: of the file.
        curves: by their name in the legend.
        title: above the plot.
        x, y: what the axes show.
        x_limits, y_limits: where the axes begin and end.
        level: name and y of a dotted horizontal line to compare with.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5))
    for name, curve in curves.items():
        line = axes.plot(*zip(*curve.points, strict=True), ".-", label=name)[0]
        for mark in curve.marks:
            axes.plot(*mark, "*", ms=13, color=line.get_color())
    if level is not None:
        axes.axhline(level[1], ls=":", color="grey", label=level[0])
    axes.set(xlabel=x, ylabel=y, xlim=x_limits, ylim=y_limits)
    axes.set_title(title, fontsize=10)
    axes.legend()
    figure.tight_layout()
    with whole(path) as new:
        figure.savefig(new, dpi=120, format="png")
    plt.close(figure)
