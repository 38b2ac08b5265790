"""Writes the README's table from the committed report of a demo run.

python -m bench.readme           rewrite the table in README.md
python -m bench.readme --check   exit 1 if README.md does not say what the report says
"""

import argparse
import json
import sys
from typing import Any

from bench import ROOT
from eefast.demo.report import speed_rows
from eefast.measure import markdown_table, write_whole

REPORT = ROOT / "docs" / "demo" / "report.json"
README = ROOT / "README.md"
BEGIN, END = "<!-- demo: begin -->\n", "<!-- demo: end -->\n"


COLUMNS = [
    "policy", "test accuracy", "layer speed-up", "wall clock vs `Never()`",
    "wall clock vs transformers", "p50 ms", "p90 ms",
]  # fmt: skip


def table(report: dict[str, Any]) -> str:
    """The policies of a report as a Markdown table, and a line on how it was measured."""
    where, data = report["environment"], report["dataset"]
    measured = [*report["policies"], report["full_depth"]]
    rows = [
        [name, f"{row['accuracy']:.3f}", *figures]
        for row, (name, *figures) in zip(measured, speed_rows(report), strict=True)
    ]
    rows[-1][0] += ", full depth"
    exits = ", ".join(f"{exit['test_accuracy']:.3f}" for exit in report["exits"])
    return (
        f"{markdown_table(COLUMNS, rows)}\n\n"
        f"Accuracy on {data['test']} held-out tweets (the exits alone: {exits}). Speed-ups on the "
        f"timed ones of them: {where['timing']}; {where['dtype']}, {where['threads']} threads of "
        f"{where['cpu']}, torch {where['torch']}, transformers {where['transformers']}, seed "
        f"{data['seed']}.\n"
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
