"""The commands that set engines against each other in rounds."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.cpu_peers.environment import require_packages
from eefast.measure import write_whole


def run(
    description: str | None,
    packages: Sequence[str],
    measure: Callable[[int], Iterator[Mapping[str, Any]]],
    markdown: Callable[[Mapping[str, Any]], str],
    results: Path,
    page: Path,
    arguments: Sequence[str] | None,
) -> None:
    """Measure, and write results and their page.

    Args:
        description: of the command.
        packages: that measuring needs.
        measure: from the number of rounds; what it yields is written at once, in the place of what
            it yielded before.
        markdown: the page of results.
        results: a JSON file.
        page: a Markdown file.
        arguments: of the command line.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", action="store_true", help="measure nothing")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each row")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error(f"--rounds must be 1 or more, got {options.rounds}")
    if options.results:
        write_whole(page, markdown(json.loads(results.read_text())))
    else:
        require_packages(*packages)
        for found in measure(options.rounds):
            write_whole(results, json.dumps(found, indent=1) + "\n")
            write_whole(page, markdown(found))
    print(page)
