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

import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from bench.cpu_peers import LENGTHS, PAGE, RESULTS
from bench.cpu_peers.cell import measured
from bench.cpu_peers.command import run
from bench.cpu_peers.engines import Setup
from bench.cpu_peers.environment import environment
from bench.cpu_peers.export import export
from bench.cpu_peers.models import SHAPES
from bench.cpu_peers.page import markdown

PACKAGES = ("openvino", "nncf", "onnx", "onnxruntime")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; see the module's docstring."""
    run(__doc__, PACKAGES, measure, markdown, RESULTS, PAGE, arguments)


def measure(rounds: int) -> Iterator[dict[str, Any]]:
    """All shapes and lengths; what has been measured, after each."""
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
                yield results


if __name__ == "__main__":
    main()
