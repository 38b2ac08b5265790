"""docs/policy_study.md and its pictures: functions of the results, and of nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.policy_study.results import OWN, REFERENCE, RULE, TARGETS
from bench.policy_study.statements import statements
from bench.policy_study.times import is_cut
from eefast.evaluation import FixedDepth
from eefast.measure import Curve, draw_curves, markdown_table

Results = Mapping[str, Any]


def markdown(results: Results, times: Mapping[str, Any] | None = None) -> str:
    """The page.

    Args:
        results: as `bench.policy_study.results.results` gives them.
        times: as `bench.policy_study.times.timed` gives them; None: nothing was timed.
    """
    studies = results["studies"]
    return TEXT.format(
        overview=overview(studies),
        statements="\n\n".join(
            f"**{name_of(study)}.** {statements(study)}" for study in studies.values()
        ),
        studies="\n\n".join(section(name, study) for name, study in studies.items()),
        times="" if times is None else "\n\n" + clock(times),
    )


def name_of(study: Results) -> str:
    """A study in words."""
    return f"{study['title']}, {study['model']}"


def overview(studies: Mapping[str, Results]) -> str:
    """For every system and study: how much faster than fixed depth at equal accuracy."""
    names = dict.fromkeys(name for study in studies.values() for name in study["systems"])
    rows = []
    for name in names:
        cells = []
        for study in studies.values():
            point = study["systems"].get(name, {}).get("points", {}).get(RULE)
            cells.append("" if point is None else _marked(point["faster_trained"]))
        rows.append([name, *cells])
    return markdown_table(["system", *map(name_of, studies.values())], rows)


def section(name: str, study: Results) -> str:
    """One study: what was trained, its tables and its picture."""
    training, samples = study["training"], study["samples"]
    said = (
        f"{study['depth']} layers, {study['classes']} classes; {training['epochs']:g} epochs at "
        f"{training['learning_rate']:g}, texts of at most {training['max_length']} tokens; judged "
        f"on {samples['test']} test texts, calibrated on {samples['validation']} others; seeds "
        f"{', '.join(map(str, study['seeds']))}."
    )
    missing = f"\n\nNot trained: {', '.join(study['missing'])}." if study["missing"] else ""
    return "\n\n".join(
        [
            f"## {name_of(study)}",
            said + missing,
            f"![accuracy over layer speed-up](policy_study/{name}.png)",
            "By one rule, the fastest setting that loses at most half a point on validation data:",
            against_fixed_depth(study),
            "The papers' form, points of accuracy from the model trained without exits, and layer "
            "speed-up: each paper's own calibration, and the most accurate setting for a speed.",
            papers_form(study),
            "BEEM's own ways to choose its numbers:",
            settings(study),
            _folded("Where samples exit by the rule, in %", exits(study)),
            _folded("Accuracy of every exit, by training objective", accuracies(study)),
            _folded(
                "Every policy on every training: accuracy at about 1.5x (one seed)", crossed(study)
            ),
        ]
    )


def against_fixed_depth(study: Results) -> str:
    """The table that a reader wants first."""
    rows = []
    for name, system in study["systems"].items():
        point = system["points"][RULE]
        against = system["against_reference"]
        rows.append(
            [
                name,
                f"`{system['objective']}`",
                str(len(system["seeds"])),
                f"{point['accuracy']['median']:.3f}",
                f"{point['speedup']['median']:.2f}x",
                _with_interval(point["faster_exits"]),
                _with_interval(point["faster_trained"]),
                "" if against is None else _with_interval(against),
            ]
        )
    columns = [
        "system", "trained with", "seeds", "accuracy", "layer speed-up",
        "faster than its own exits",
        "faster than -kL", f"speed of {REFERENCE}'s",
    ]  # fmt: skip
    return markdown_table(columns, rows)


def papers_form(study: Results) -> str:
    """Difference in accuracy and speed-up, as the papers' tables have them."""
    full, depth = study["fixed"][str(study["depth"])], study["depth"]
    calibrations = [OWN, *(f"{target:g}" for target in TARGETS)]
    blank = [""] * (len(calibrations) - 1)
    rows = [[f"full model ({100 * full:.1f} %)", "0.0, 1.00x", *blank]]
    for layers, accuracy in reversed(study["fixed"].items()):
        if int(layers) < depth:
            cell = f"{100 * (accuracy - full):+.1f}, {depth / int(layers):.2f}x"
            rows.append([f"-{layers}L", cell, *blank])
    for name, system in study["systems"].items():
        cells = []
        for calibration in calibrations:
            point = system["points"].get(calibration)
            cells.append("not reached" if point is None else _difference(point))
        rows.append([name, *cells])
    found = study["oracle"].get("beem")
    if found is not None:
        cell = f"{100 * (found['accuracy'] - full):+.1f}, {found['speedup']:.2f}x"
        rows.append(["oracle (knows the labels; BEEM's training)", cell, *blank])
    return markdown_table(["system", "own calibration", *(f"about {t:g}x" for t in TARGETS)], rows)


def settings(study: Results) -> str:
    """BEEM with several weights, spaces and ways to count."""
    rows = [
        [
            name,
            f"{100 * point['difference']['median']:+.1f}",
            f"{point['speedup']['median']:.2f}x",
            _with_interval(point["gain_exits"], 100, "+.1f", ""),
            _with_interval(point["gain_trained"], 100, "+.1f", ""),
        ]
        for name, point in study["settings"].items()
    ]
    return markdown_table(
        [
            "setting", "points from the full model", "layer speed-up",
            "points over its own exits at that speed", "points over -kL at that speed",
        ],
        rows,
    )  # fmt: skip


def exits(study: Results) -> str:
    """Histograms of exits by the rule."""
    rows = [
        [name, *(f"{100 * share:.0f}" for share in system["points"][RULE]["exits"])]
        for name, system in study["systems"].items()
    ]
    return markdown_table(["system", *map(str, range(1, study["depth"] + 1))], rows)


def accuracies(study: Results) -> str:
    """Of every exit and training."""
    rows = [[f"`{o}`", *(f"{a:.3f}" for a in row)] for o, row in study["exits"].items()]
    fixed = [study["fixed"].get(str(k)) for k in range(1, study["depth"] + 1)]
    rows.append(["-kL", *("" if a is None else f"{a:.3f}" for a in fixed)])
    return markdown_table(["trained with", *map(str, range(1, study["depth"] + 1))], rows)


def crossed(study: Results) -> str:
    """Accuracies at one speed, by policy and training."""
    objectives = list(study["exits"])
    found = study["crossed"]
    rows = []
    for name, system in study["systems"].items():
        own = system["points"].get("1.5")
        reached = {o: (found.get(f"{name} on {o}") or [None])[0] for o in objectives}
        reached[system["objective"]] = None if own is None else own["accuracy"]["seeds"][0]
        rows.append([name, *("" if a is None else f"{a:.3f}" for a in reached.values())])
    return markdown_table(["policy", *objectives], rows)


def clock(times: Mapping[str, Any]) -> str:
    """What some systems and -kL take on a clock."""
    rows = [
        [
            study,
            name,
            f"{row['accuracy']:.3f}",
            f"{row['layers']:.2f}",
            f"{row['p50_ms']:.2f}",
            f"{row['mean_ms']:.2f}",
            "" if row["faster"] is None else f"{row['faster']:.2f}x",
        ]
        for study, found in times["studies"].items()
        for name, row in _against_cut(found)
    ]
    where = times["environment"]
    columns = [
        "study", "system", "accuracy", "layers", "p50 ms", "mean ms", "faster than -kL",
    ]  # fmt: skip
    return (
        "## On a clock\n\n"
        "The first seed, settings by the rule; batch 1, all models of a study in turn, "
        f"`dtype={where['dtype']!r}`, {where['threads']} threads of {where['cpu']}, torch "
        f"{where['torch']}, transformers {where['transformers']}. Accuracy and layers are of all "
        f"test texts in {where['dtype']}, times of {where['timed']}. *Faster than -kL*: the mean "
        "time that -kL needs for the system's accuracy, over the system's; a random mix of two "
        "depths has a mix of their times.\n\n"
        f"{markdown_table(columns, rows)}"
    )


def _against_cut(found: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a study, each with how much faster it is than -kL at equal accuracy."""
    cut = sorted((row for name, row in found.items() if is_cut(name)), key=lambda r: r["mean_ms"])
    depth = FixedDepth([r["mean_ms"] for r in cut], [r["accuracy"] for r in cut]) if cut else None
    for name, row in found.items():
        faster = None
        if depth is not None and not is_cut(name):
            faster = depth.layers_for(row["accuracy"]) / row["mean_ms"]
        yield name, {**row, "faster": faster}


def draw(results: Results, folder: Path) -> None:
    """One picture per study: all systems and both kinds of fixed depth."""
    for name, study in results["studies"].items():
        depth = study["depth"]
        cut = [(depth / int(k), accuracy) for k, accuracy in study["fixed"].items()]
        own = study["exits"].get("beem", [])
        curves = {
            "-kL, trained as such": Curve(sorted(cut)),
            "exits of BEEM's training": Curve(
                sorted((depth / k, accuracy) for k, accuracy in enumerate(own, 1))
            ),
            **{system: Curve(found["curve"]) for system, found in study["systems"].items()},
        }
        curves = {label: curve for label, curve in curves.items() if curve.points}
        full = study["fixed"][str(depth)]
        highest = max(y for curve in curves.values() for _, y in curve.points)
        draw_curves(
            folder / f"{name}.png",
            curves,
            title=f"{name_of(study)}: test samples",
            x="layer speed-up",
            y="accuracy",
            x_limits=(0.95, 3.2),
            y_limits=(full - 0.15, highest + 0.01),
            level=("full model", full),
            note="Settings chosen on validation samples for speed-ups from 1.1 to 3; "
            "median over seeds.",
        )


def _difference(point: Results) -> str:
    return f"{100 * point['difference']['median']:+.1f}, {point['speedup']['median']:.2f}x"


def _marked(figure: Mapping[str, float]) -> str:
    """In bold where the interval lies on one side of 1."""
    said = f"{figure['median']:.2f}x"
    return f"**{said}**" if figure["low"] > 1 or figure["high"] < 1 else said


def _with_interval(
    figure: Mapping[str, float], scale: float = 1, form: str = ".2f", unit: str = "x"
) -> str:
    median, low, high = (f"{scale * figure[key]:{form}}" for key in ("median", "low", "high"))
    return f"{median}{unit} [{low}, {high}]"


def _folded(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"


def tables(studies: Iterable[Results]) -> str:
    """What a run prints when it is done."""
    return "\n\n".join(f"{name_of(s)}\n\n{against_fixed_depth(s)}" for s in studies)


TEXT = """\
# The papers' systems on real data

Written by `python -m bench.policy_study --results` from the traces in `docs/policy_study/traces`,
without weights; without `--results` it trains first. Every system has the training objective, the
exit rule and the calibration of its paper, in one implementation, on one backbone, with one
learning rate and number of epochs per data set for all.

How to read it. *Layer speed-up* counts layers. *Fixed depth* runs one depth for all samples: the
system's own model cut at exit k ("its own exits"), or k layers trained without exits ("-kL"); a
speed between two depths is that of a random mix of both, the best one by test labels, so fixed
depth is favoured. *Faster at equal accuracy* is the layers that fixed depth needs for the system's
accuracy over those that the system runs: 1.00x is no gain. Brackets are 95 % bootstrap intervals
over test samples, paired; medians are over seeds, as many as the column says. That another
training would come out otherwise is not in the brackets: differences between systems with
trainings of their own hold for these trainings. Nothing was chosen on test data.

## Faster than fixed depth at equal accuracy

By one rule, the fastest setting that loses at most half a point against the last exit on
validation data; against -kL. Bold: the interval leaves out 1.

{overview}

## What exceeds its interval, and where BEEM stands

{statements}

{studies}{times}
"""
