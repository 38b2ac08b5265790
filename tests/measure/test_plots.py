"""Plots: a file comes out, and it shows what was asked for."""

import matplotlib.pyplot as plt
import pytest

from eefast.measure import Curve, draw_curves


def test_curves_marks_and_level(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(plt, "close", kept.append)
    path = tmp_path / "a.png"
    curves = {"up": Curve([(1, 1), (2, 3)], [(2, 3)]), "down": Curve([(1, 3), (2, 1)])}
    draw_curves(
        path, curves, title="both", x="time", y="height", x_limits=(0, 3), y_limits=(0, 4),
        level=("half", 2.0),
    )  # fmt: skip
    assert path.read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == [path]
    (axes,) = kept[0].axes
    up, star, down, half = axes.lines
    assert up.get_xydata().tolist() == [[1, 1], [2, 3]]
    assert star.get_xydata().tolist() == [[2, 3]]
    assert star.get_color() == up.get_color() != down.get_color()
    assert half.get_ydata() == pytest.approx([2, 2])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["up", "down", "half"]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("time", "height", "both")
    assert (axes.get_xlim(), axes.get_ylim()) == ((0, 3), (0, 4))
