"""The demo's report: figures as JSON, as tables for the terminal, in words, and as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import DatasetDict
from rich.table import Table

from eefast.demo.policies import CHOOSERS, EARLY_EXIT, MAX_ACCURACY_DROP
from eefast.demo.tasks import Task
from eefast.evaluation import NEVER, SPLITS, TRANSFORMERS, Evaluation, Repeated, draw_trade_off
from eefast.measure import Curve, terminal_table
from eefast.policies import BEEM, PABEE, PCEE, Entropy, Policy
from eefast.traces import ExitTrace, pareto_front, trade_off


def make_report(
    task: Task,
    data: DatasetDict,
    seed: int,
    found: Evaluation,
    splits: dict[str, Repeated],
) -> dict[str, Any]:
    """All figures of a demo run, ready for JSON.

    Args:
        task: what it ran on.
        data: the splits.
        seed: of the split and the training.
        found: on the test split, with policies calibrated on the validation split.
        splits: the same on random halves of both, by policy.
    """
    return {
        "task": {
            "name": task.name,
            "title": task.title,
            "model": task.model,
            "seed": seed,
            **{split: len(data[split]) for split in data},
        },
        "max_accuracy_drop": MAX_ACCURACY_DROP,
        **found.to_dict(),
        "random_halves": SPLITS,
        "splits": {
            name: {field: spread._asdict() for field, spread in vars(repeated).items()}
            for name, repeated in splits.items()
        },
    }


def report_rows(report: Mapping[str, Any]) -> list[list[str]]:
    """One row per policy, for full depth in eefast and in transformers.

    Cells: name; accuracy and layer speed-up over the splits, median (10 to 90 %); wall-clock
    speed-up over full depth in eefast and over transformers; p50 and p90 in ms.
    """
    timings = {row["name"]: row["timing"] for row in report["rows"]}
    rows = []
    for name in (*CHOOSERS, NEVER, TRANSFORMERS):
        # transformers runs the same layers and the same head.
        of_splits = report["splits"][NEVER if name == TRANSFORMERS else name]
        timing = timings[name]
        speedups = (timing["speedup_vs_never"], timing["speedup_vs_transformers"])
        rows.append(
            [
                name,
                _spread(of_splits["accuracy"], ".3f"),
                _spread(of_splits["layer_speedup"], ".2f", "x"),
                *(f"{speedup:.2f}x" for speedup in speedups),
                *(f"{timing[key]:.2f}" for key in ("p50_ms", "p90_ms")),
            ]
        )
    return rows


def report_tables(report: Mapping[str, Any], found: Evaluation) -> list[Table]:
    """For a terminal of 80 columns: accuracy and layers over the splits, exits, latency."""
    return [
        terminal_table(
            f"{report['random_halves']} random halves: median (10 to 90 %)",
            ["policy", "accuracy", "layer speed-up"],
            [row[:3] for row in report_rows(report)],
        ),
        *found.exit_table(),
        found.latency_table([*CHOOSERS, NEVER, TRANSFORMERS]),
    ]


def against_fixed_depth(report: Mapping[str, Any]) -> str:
    """What the policies of the rule gain over fixed depth, and how that is to be read."""
    return (
        f"Against fixed depth, on the same random halves: {gains(report)}. (The lowest and the "
        "highest median of the policies chosen by one rule, with 10 to 90 % of the splits. A speed "
        "between two depths is that of a random mix of both.)"
    )


def gains(report: Mapping[str, Any]) -> str:
    """What the policies of the rule gain over fixed depth, at equal speed and equal accuracy."""
    splits = {name: report["splits"][name] for name in EARLY_EXIT}

    def extremes(figure: str, scale: float, form: str, unit: str) -> str:
        ordered = sorted(splits, key=lambda name: splits[name][figure]["median"])
        said = []
        for name in (ordered[0], ordered[-1]):
            median, low, high = (
                f"{scale * splits[name][figure][key]:{form}}" for key in ("median", "p10", "p90")
            )
            said.append(f"{median}{unit} ({name}; {low} to {high})")
        return " to ".join(said)

    points = extremes("accuracy_gain", 100, "+.1f", " points")
    ratios = extremes("speedup_gain", 1, ".2f", "x")
    return (
        f"at equal speed early exit gains {points} of accuracy; at equal accuracy it is {ratios} "
        "as fast"
    )


def draw_curves_of(
    path: Path, task: Task, found: Evaluation, traces: Mapping[str, ExitTrace]
) -> None:
    """Accuracy over layer speed-up on the test split: families, fixed depth, chosen policies."""
    test = traces["test"]
    accuracies = traces["validation"].accuracies().tolist()
    alphas = [i / 20 for i in range(1, 20 * test.num_exits)]
    families: dict[str, list[Policy]] = {
        "BEEM-A": [BEEM.accuracy(accuracies, alpha) for alpha in alphas],
        "BEEM-C": [BEEM.cost(test.num_exits, alpha) for alpha in alphas],
        "PABEE": [*PABEE.settings(test)],
        "PCEE": [*PCEE.settings(test)],
        "entropy": [*Entropy.settings(test)],
        "fixed depth": [],  # drawn with all its exits
    }
    curves = {
        f"{name}, best settings": Curve(
            [(p.layer_speedup, p.accuracy) for p in pareto_front(trade_off(settings, test))],
            {
                f"{chosen}, chosen": (found[chosen].layer_speedup, found[chosen].accuracy)
                for chosen in found.policies
                if chosen.split(",")[0] == name
            },
        )
        for name, settings in families.items()
    }
    draw_trade_off(
        path,
        curves,
        found.exit_layers,
        found.exit_accuracies,
        title=f"{task.title}, {task.model}: test split",
        note="Curves: the best settings of each family on the split shown. "
        "Marks: chosen on validation data.",
    )


def _spread(values: Mapping[str, float], form: str, unit: str = "") -> str:
    median, low, high = (f"{values[key]:{form}}" for key in ("median", "p10", "p90"))
    return f"{median}{unit} ({low}-{high})"
