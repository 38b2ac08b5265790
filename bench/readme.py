"""Writes the README's table from the committed report of a demo run.

python -m bench.readme           rewrite the table in README.md
python -m bench.readme --check   exit 1 if README.md does not say what the report says
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "docs" / "demo" / "report.json"
README = ROOT / "README.md"
BEGIN, END = "<!-- demo: begin -->\n", "<!-- demo: end -->\n"


def table(report: dict[str, Any]) -> str:
    """The policies of a report as a Markdown table, and a line on how it was measured."""
    lines = [
        "| policy | test accuracy | layer speed-up | wall clock vs `Never()` "
        "| wall clock vs transformers | p50 ms | p90 ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in report["policies"]:
        lines.append(
            f"| {row['name']} | {row['accuracy']:.3f} | {row['layer_speedup_timed']:.2f}x "
            f"| {row['wall_clock_speedup_vs_never']:.2f}x | {row['wall_clock_speedup']:.2f}x "
            f"| {row['p50_ms']:.2f} | {row['p90_ms']:.2f} |"
        )
    full, where, data = report["full_depth"], report["environment"], report["dataset"]
    lines.append(
        f"| transformers, full depth | {full['accuracy']:.3f} | 1.00x | | 1.00x "
        f"| {full['p50_ms']:.2f} | {full['p90_ms']:.2f} |"
    )
    exits = ", ".join(f"{exit['test_accuracy']:.3f}" for exit in report["exits"])
    lines += [
        "",
        f"Accuracy on {data['test']} held-out tweets (the exits alone: {exits}). Speed-ups on the "
        f"timed ones of them: {where['timing']}; {where['dtype']}, {where['threads']} threads of "
        f"{where['cpu']}, torch {where['torch']}, transformers {where['transformers']}, seed "
        f"{data['seed']}.",
    ]
    return "\n".join(lines) + "\n"


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
    README.write_text(new)


if __name__ == "__main__":
    main()
