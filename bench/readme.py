"""Writes the README's table from the committed report of a demo run.

python -m bench.readme           rewrite the table in README.md
python -m bench.readme --check   exit 1 if README.md does not say what the report says
"""

import argparse
import json
import sys
from typing import Any

from bench import ROOT
from eefast.demo.report import against_fixed_depth, report_rows
from eefast.measure import markdown_table, write_whole

REPORT = ROOT / "docs" / "demo" / "report.json"
README = ROOT / "README.md"
BEGIN, END = "<!-- demo: begin -->\n", "<!-- demo: end -->\n"


COLUMNS = [
    "policy", "accuracy", "layer speed-up", "wall clock vs full depth",
    "wall clock vs transformers", "p50 ms", "p90 ms",
]  # fmt: skip


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


def rewritten(readme: str, report: dict[str, Any]) -> str:
    """The README's text with the table of `report` between its two marks."""
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + table(report) + END + after


def main() -> None:
    """Entry point; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    old = README.read_text()
    new = rewritten(old, json.loads(REPORT.read_text()))
    if check and new != old:
        sys.exit(f"{README.name} does not say what {REPORT} says: run python -m bench.readme")
    write_whole(README, new)


if __name__ == "__main__":
    main()
