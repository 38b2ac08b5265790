"""What a study shows, in plain sentences made from its results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.policy_study.results import OWN, REFERENCE, RULE

Results = Mapping[str, Any]


def statements(study: Results) -> str:
    """Which differences exceed their intervals, what is best at 1.5x and 2x, where BEEM stands."""
    systems = study["systems"]
    said = [
        _against("their own exits", {n: s["points"][RULE]["faster_exits"] for n, s in _all(study)}),
        _against("-kL", {n: s["points"][RULE]["faster_trained"] for n, s in _all(study)}),
    ]
    said += [text for target in ("1.5", "2") if (text := _best_at(study, target))]
    if REFERENCE in systems:
        said.append(_reference(study))
    if study["settings"]:
        said.append(_settings(study))
    return " ".join(said)


def _all(study: Results) -> list[tuple[str, Any]]:
    return list(study["systems"].items())


def _against(what: str, figures: Mapping[str, Results]) -> str:
    faster = {n: f for n, f in figures.items() if f["low"] > 1}
    slower = {n: f for n, f in figures.items() if f["high"] < 1}
    open_ = len(figures) - len(faster) - len(slower)
    return (
        f"At equal accuracy faster than {what}, beyond the interval: {_listed(faster)}; slower: "
        f"{_listed(slower)}; {open_} of {len(figures)} cannot be told from it."
    )


def _listed(figures: Mapping[str, Results]) -> str:
    ordered = sorted(figures.items(), key=lambda item: -item[1]["median"])
    return ", ".join(f"{name} ({figure['median']:.2f}x)" for name, figure in ordered) or "none"


def _best_at(study: Results, target: str) -> str:
    """The most accurate system at a speed, against fixed depth and the full model."""
    there = {n: s["points"][target] for n, s in _all(study) if target in s["points"]}
    if not there:
        return ""
    name = max(there, key=lambda n: there[n]["gain_trained"]["median"])
    gain, lost = there[name]["gain_trained"], there[name]["difference"]
    return (
        f"About {target}x {name} gains most over -kL, {_points(gain)} points at its speed of "
        f"{there[name]['speedup']['median']:.2f}x, and is {_points(lost)} from the full model."
    )


def _points(figure: Results) -> str:
    median, low, high = (f"{100 * figure[key]:+.1f}" for key in ("median", "low", "high"))
    return f"{median} [{low}, {high}]"


def _reference(study: Results) -> str:
    systems = study["systems"]
    place = _place(study, lambda point: point["faster_trained"]["median"], RULE)
    own = _place(study, lambda point: point["accuracy"]["median"], OWN)
    against = {
        n: s["against_reference"] for n, s in systems.items() if s["against_reference"] is not None
    }
    better = {n: f for n, f in against.items() if f["low"] > 1}
    worse = {n: f for n, f in against.items() if f["high"] < 1}
    return (
        f"{REFERENCE} is number {place} of {len(systems)} by speed at equal accuracy, and number "
        f"{own} by accuracy at each paper's own calibration. Beyond the interval, faster than "
        f"{REFERENCE}: {_listed(better)}; slower: {_listed(worse)}."
    )


def _place(study: Results, figure: Any, calibration: str) -> int:
    values = {n: figure(s["points"][calibration]) for n, s in _all(study)}
    return 1 + sum(value > values[REFERENCE] for value in values.values())


def _settings(study: Results) -> str:
    points = study["settings"]
    name = max(points, key=lambda n: points[n]["gain_exits"]["median"])
    return (
        f"Of BEEM's own settings, {name} gains most over its own exits at its speed: "
        f"{_points(points[name]['gain_exits'])} points."
    )
