"""Plots of figures, into files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from eefast.files import whole

Point = tuple[float, float]

_LINES = ("-", "--", ":")
"""One for each round of the ten colours."""
_MARKERS = "*PXDs^vph<>8d"


class Curve(NamedTuple):
    """Settings that exist, `points` from left to right, and named marks of the same colour.

    Between two points the curve is a step: who asks for an x in between gets the next point.
    """

    points: Sequence[Point]
    marks: Mapping[str, Point] = {}


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
    note: str = "",
) -> None:
    """Draw curves into a PNG file. No two marks look alike; each has its line in the legend.

    Args:
        path: of the file.
        curves: by their name in the legend; without points, only the marks are drawn.
        title: above the plot.
        x, y: what the axes show.
        x_limits, y_limits: where the axes begin and end.
        level: name and y of a dotted horizontal line to compare with.
        note: below the plot.

    Raises:
        ValueError: more curves or marks than can be told apart.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    if len(curves) > 10 * len(_LINES):
        raise ValueError(f"a plot has room for {10 * len(_LINES)} curves, got {len(curves)}")
    number = sum(len(curve.marks) for curve in curves.values())
    if number > len(_MARKERS):
        raise ValueError(f"a plot has room for {len(_MARKERS)} marks, got {number}")
    markers = iter(_MARKERS)
    figure, axes = plt.subplots(figsize=(9, 5))
    for index, (name, curve) in enumerate(curves.items()):
        color, points = f"C{index % 10}", curve.points
        if points:
            places = zip(*points, strict=True)
            line = axes.step(*places, where="pre", color=color, label=name)[0]
            line.set(marker=".", ls=_LINES[index // 10], lw=1, alpha=0.8)
        for label, mark in curve.marks.items():
            line = axes.plot(*mark, color=color, label=label, ls="", marker=next(markers))[0]
            line.set(markersize=9, markeredgecolor="black", zorder=3)
    if level is not None:
        axes.axhline(level[1], ls=":", color="grey", label=level[0])
    axes.set(xlabel=x, ylabel=y, xlim=x_limits, ylim=y_limits)
    axes.set_title(title, fontsize=10)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
    figure.supxlabel(note, fontsize=8)
    figure.tight_layout()
    with whole(path) as new:
        figure.savefig(new, dpi=120, format="png")
    plt.close(figure)
