"""`python -m bench.models`: checks every family and writes docs/models.md.

Results are kept in a file as they come, so that a second run goes on where the first was stopped;
each process checks a few families, and what crashes or hangs takes nothing else with it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import transformers

from bench.models.tiny import TASKS
from eefast.files import write_whole
from eefast.measure.tables import markdown_table

_AT_ONCE = 12
_SECONDS = 240


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("build/models.jsonl"))
    parser.add_argument("--page", type=Path, default=Path("docs/models.md"))
    parser.add_argument("--again", nargs="*", default=[], help="families to check once more")
    arguments = parser.parse_args()
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    results = _kept(arguments.results)
    families = [name for mapping in TASKS.values() for name in mapping]
    waiting = [n for n in dict.fromkeys(families) if n not in results or n in arguments.again]
    while waiting:
        some, waiting = waiting[:_AT_ONCE], waiting[_AT_ONCE:]
        for result in _checked(some):
            results[result["model"]] = result
            with arguments.results.open("a") as file:
                file.write(json.dumps(result) + "\n")
            print(result["model"], result["outcome"] or "ok", flush=True)
    write_whole(arguments.page, page(results))


def _kept(path: Path) -> dict[str, dict[str, Any]]:
    lines = path.read_text().splitlines() if path.exists() else []
    return {result["model"]: result for result in map(json.loads, lines)}


def _checked(names: list[str]) -> list[dict[str, Any]]:
    """Results of all `names`; the one at which a process ended early is told from what it said."""
    found: list[dict[str, Any]] = []
    while len(found) < len(names):
        rest = names[len(found) :]
        command = [sys.executable, "-m", "bench.models.check", *rest]
        try:
            ran = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=_SECONDS
            )
            output, why = ran.stdout, f"the process ended with {ran.returncode}"
        except subprocess.TimeoutExpired as late:
            output, why = late.stdout or b"", f"not done after {_SECONDS} s"
        lines = output.decode().splitlines()
        found += [json.loads(s.removeprefix("RESULT ")) for s in lines if s.startswith("RESULT ")]
        if len(found) < len(names):
            found.append({"model": names[len(found)], "outcome": why})
    return found


def page(results: dict[str, dict[str, Any]]) -> str:
    """docs/models.md."""
    parts = [
        "# Models\n\nWritten by `python -m bench.models`. Every family of transformers' mappings "
        "for classifying texts, images and audio, as a tiny random model: walked layer by layer as "
        "the model itself does, rows dropped without a change for the others, compiled with BEEM, "
        "answers equal to the full model's and exits to `simulate`'s.\n\n"
        f"transformers {transformers.__version__}, torch {torch.__version__}, on the CPU.\n"
    ]
    for task, mapping in TASKS.items():
        rows = [results[name] for name in mapping if name in results]
        good = [row for row in rows if not row["outcome"]]
        parts.append(f"## {task}: {len(good)} of {len(rows)}\n")
        cells = [
            (
                row["model"],
                row.get("class", ""),
                str(row.get("layers", "")),
                row.get("reads", ""),
                row.get("kept", ""),
                row["outcome"].replace("|", "\\|") or "yes",
            )
            for row in rows
        ]
        columns = (
            "model_type",
            "task model",
            "layers",
            "exits read",
            "trained head kept as",
            "works",
        )
        parts.append(markdown_table(columns, cells) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    main()
