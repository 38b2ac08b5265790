"""eefast at full depth against the engines that are deployed on CPUs, batch 1.

    make peers                            # or, with the extra [peers] installed:
    python -m bench.cpu_peers             # about 45 minutes; nothing else should run meanwhile
    python -m bench.cpu_peers --results   # the page again, from the committed figures

Random weights of BERT-base's and MiniLM-L12's shape, the same in all engines. Every engine runs in
a process of its own. They are asked in turn, in several rounds, and all but the asked one are
stopped. docs/cpu_peers.json and docs/cpu_peers.md are written after every shape and length, so that
an interruption loses one of them; what differs from the model's own answers is not timed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from bench.cpu_peers import LENGTHS, PAGE, RESULTS
from bench.cpu_peers.cell import measured
from bench.cpu_peers.engines import Setup
from bench.cpu_peers.environment import environment, require_packages
from bench.cpu_peers.export import export
from bench.cpu_peers.models import SHAPES
from bench.cpu_peers.page import markdown
from eefast.measure import write_whole

PACKAGES = ("openvino", "nncf", "onnx", "onnxruntime")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", action="store_true", help="measure nothing")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each engine")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error(f"--rounds must be 1 or more, got {options.rounds}")
    if not options.results:
        require_packages(*PACKAGES)
        measure(options.rounds)
    write_whole(PAGE, markdown(json.loads(RESULTS.read_text())))
    print(PAGE)


def measure(rounds: int) -> None:
    """Measure all shapes and lengths, and write both files after each."""
    results: dict[str, Any] = {"environment": environment(*PACKAGES), "rounds": rounds, "cells": []}
    for shape in SHAPES:
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            print(f"{shape}: exporting", file=sys.stderr, flush=True)
            # In a process of its own: what it needs of memory is then free again.
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                failed = pool.submit(export, shape, folder).result()
            for length in LENGTHS:
                setup = Setup(shape, length, folder, results["environment"]["threads"])
                results["cells"].append(measured(setup, failed, rounds))
                write_whole(RESULTS, json.dumps(results, indent=1) + "\n")
                write_whole(PAGE, markdown(results))


if __name__ == "__main__":
    main()
