"""Writes the README's tables from the committed figures of two demo runs and of bench.cpu_texts.

python -m bench.readme           rewrite the tables in README.md
python -m bench.readme --check   exit 1 if README.md does not say what the report says
"""

import argparse
import json
import sys
from typing import Any

from bench import ROOT
from bench.cpu_texts import RESULTS
from bench.cpu_texts.page import short
from eefast.demo.report import against_fixed_depth, gains, report_rows
from eefast.measure import markdown_table, write_whole

REPORTS = {task: ROOT / "docs" / "demo" / task / "report.json" for task in ("tweets", "reviews")}
README = ROOT / "README.md"
DEMO, ENGINES = "demo", "engines"
"""The parts of the README that are written here, each between two marks."""


COLUMNS = [
    "policy", "accuracy", "layer speed-up", "wall clock vs full depth",
    "wall clock vs transformers", "p50 ms", "p90 ms",
]  # fmt: skip


def reports() -> dict[str, Any]:
    """The committed reports by task."""
    return {task: json.loads(path.read_text()) for task, path in REPORTS.items()}


def engines() -> dict[str, Any]:
    """The committed figures of `bench.cpu_texts`."""
    figures: dict[str, Any] = json.loads(RESULTS.read_text())
    return figures


def table(report: dict[str, Any]) -> str:
    """The policies of a report as a Markdown table, how it was measured, and what is gained."""
    where, task = report["environment"], report["task"]
    exits = ", ".join(f"{accuracy:.3f}" for accuracy in report["exit_accuracies"])
    return (
        f"{markdown_table(COLUMNS, report_rows(report))}\n\n"
        f"{task['model']} on {task['title']}. Accuracy and layer speed-up: median (10 to 90 %) "
        f"over {report['random_halves']} random halves of {task['validation'] + task['test']} "
        "samples that training has not seen: each policy is calibrated on one half and judged on "
        "the other. Rows are not ranked: medians that differ by less than the spread are alike. "
        f"(The exits alone, on the test split: {exits}.) Wall clock: the settings chosen on the "
        f"validation split, batch 1, {report['timed']} test samples, variants in turn, ratios of "
        f"total times; {where['dtype']}, {where['threads']} threads of {where['cpu']}, torch "
        f"{where['torch']}, transformers {where['transformers']}, seed {task['seed']}.\n\n"
        f"{against_fixed_depth(report)}\n"
    )


def in_words(report: dict[str, Any]) -> str:
    """What another data set shows, in a sentence."""
    task = report["task"]
    exits = ", ".join(f"{accuracy:.3f}" for accuracy in report["exit_accuracies"])
    return (
        f"The same on {task['title']}, {task['validation'] + task['test']} of them held out "
        f"(the exits alone: {exits}): {gains(report)}.\n"
    )


def rewritten(readme: str, of_task: dict[str, Any], of_engines: dict[str, Any]) -> str:
    """The README's text with the figures of the demo's reports, by task, and of the engines."""
    figures = f"{table(of_task['tweets'])}\n{in_words(of_task['reviews'])}"
    return _with(_with(readme, DEMO, figures), ENGINES, short(of_engines))


def _with(text: str, part: str, figures: str) -> str:
    begin, end = f"<!-- {part}: begin -->\n", f"<!-- {part}: end -->\n"
    before, rest = text.split(begin)
    return before + begin + figures + end + rest.split(end)[1]


def main() -> None:
    """Entry point; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    old = README.read_text()
    new = rewritten(old, reports(), engines())
    if check and new != old:
        sys.exit(f"{README.name} has not the committed figures: run python -m bench.readme")
    write_whole(README, new)


if __name__ == "__main__":
    main()
