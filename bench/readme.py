"""Writes the README's table from the committed reports of two demo runs.

python -m bench.readme           rewrite the table in README.md
python -m bench.readme --check   exit 1 if README.md does not say what the report says
"""

import argparse
import json
import sys
from typing import Any

from bench import ROOT
from eefast.demo.report import against_fixed_depth, gains, report_rows
from eefast.measure import markdown_table, write_whole

REPORTS = {task: ROOT / "docs" / "demo" / task / "report.json" for task in ("tweets", "reviews")}
README = ROOT / "README.md"
BEGIN, END = "<!-- demo: begin -->\n", "<!-- demo: end -->\n"


COLUMNS = [
    "policy", "accuracy", "layer speed-up", "wall clock vs full depth",
    "wall clock vs transformers", "p50 ms", "p90 ms",
]  # fmt: skip


def reports() -> dict[str, Any]:
    """The committed reports by task."""
    return {task: json.loads(path.read_text()) for task, path in REPORTS.items()}


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


def rewritten(readme: str, of_task: dict[str, Any]) -> str:
    """The README's text with the figures of the reports, by task, between its two marks."""
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    figures = f"{table(of_task['tweets'])}\n{in_words(of_task['reviews'])}"
    return before + BEGIN + figures + END + after


def main() -> None:
    """Entry point; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    old = README.read_text()
    new = rewritten(old, reports())
    if check and new != old:
        sys.exit(f"{README.name} does not say what docs/demo says: run python -m bench.readme")
    write_whole(README, new)


if __name__ == "__main__":
    main()
