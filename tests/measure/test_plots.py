"""Plots: a file comes out, and it shows what was asked for."""

import matplotlib.pyplot as plt
import pytest

from eefast.measure import Curve, draw_curves

LIMITS = {"x_limits": (0, 3), "y_limits": (0, 4)}


def test_steps_marks_level_and_note(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(plt, "close", kept.append)
    path = tmp_path / "a.png"
    curves = {
        "up": Curve([(1, 1), (2, 3)], {"first": (2, 3), "second": (1, 1)}),
        "down": Curve([(1, 3), (2, 1)]),
        "marks only": Curve([], {"third": (2, 2)}),
    }
    draw_curves(
        path, curves, title="both", x="time", y="height", level=("half", 2.0), note="best ones",
        **LIMITS,
    )  # fmt: skip
    assert path.read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == [path]
    figure = kept[0]
    (axes,) = figure.axes
    up, first, second, down, third, half = axes.lines
    assert up.get_xydata().tolist() == [[1, 1], [2, 3]]
    assert up.get_drawstyle() == "steps-pre"  # no line that suggests settings in between
    assert up.get_marker() == down.get_marker() == "."
    assert first.get_xydata().tolist() == [[2, 3]]
    assert first.get_color() == second.get_color() == up.get_color() != down.get_color()
    assert len({mark.get_marker() for mark in (first, second, third)}) == 3
    assert half.get_ydata() == pytest.approx([2, 2])
    said = [text.get_text() for text in axes.get_legend().get_texts()]
    assert said == ["up", "first", "second", "down", "third", "half"]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("time", "height", "both")
    assert (axes.get_xlim(), axes.get_ylim()) == ((0, 3), (0, 4))
    assert figure.get_supxlabel() == "best ones"


def test_neither_two_curves_nor_two_marks_look_alike(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(plt, "close", kept.append)
    curves = {str(i): Curve([(1, i), (2, i)]) for i in range(31)}
    labels = dict(title="", x="", y="", **LIMITS)
    draw_curves(tmp_path / "b.png", dict(list(curves.items())[:30]), **labels)
    looks = {(line.get_color(), line.get_linestyle()) for line in kept[0].axes[0].lines}
    assert len(looks) == 30
    with pytest.raises(ValueError, match="room for 30 curves, got 31"):
        draw_curves(tmp_path / "a.png", curves, **labels)
    many = {str(i): (1.0, 1.0) for i in range(14)}
    with pytest.raises(ValueError, match="room for 13 marks, got 14"):
        draw_curves(tmp_path / "a.png", {"all": Curve([], many)}, **labels)
    assert [path.name for path in tmp_path.iterdir()] == ["b.png"]
