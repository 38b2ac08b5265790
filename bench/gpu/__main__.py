"""Tests and measures eefast on a CUDA machine, in under 8 minutes.

    pip install --no-build-isolation --no-deps -e .
    python -m bench.gpu --out DIR

Needs torch, triton, transformers, pytest and eefast built here, with nvcc for impl="cuda" and for
IF nodes before torch 2.13; nvidia-ml-py for clocks and energy; pytest-xdist makes the tests
shorter. (`TORCH_CUDA_ARCH_LIST=9.0` builds for an H100 alone.)

Writes DIR/results.json and DIR/results.md after every section, so a later failure loses nothing.
Exits with 0; with 1 if a test or a measurement failed; with 2, before anything is written, if there
is no GPU.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

TOTAL_S = 440.0
TESTS_S = 150.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; see the module's docstring."""
    start = time.monotonic()
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument(
        "--quick", action="store_true", help="a smoke run: no tests, one row, no torch.compile"
    )
    asked = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("bench.gpu: there is no CUDA device here; nothing was measured", file=sys.stderr)
        return 2
    # Only now: what they import takes seconds.
    from bench.gpu import report
    from bench.gpu.gpu_tests import run_tests
    from bench.gpu.sections import SECTIONS, Results, run_section

    results = Results(asked.out)
    if asked.quick:
        results.put("tests", {"skipped": "--quick"})
    else:
        print("tests/gpu ...", flush=True)
        results.put("tests", run_tests(asked.out, TESTS_S))
    for name, (most, items, reserve) in SECTIONS.items():
        print(f"{name} ...", flush=True)
        seconds = min(most, TOTAL_S - (time.monotonic() - start))
        if asked.quick:
            seconds, items = min(seconds, 30), items[:1] if name == "models" else items
        run_section(results, name, items, seconds, quick=asked.quick, reserve=reserve)
    results.put("seconds", time.monotonic() - start)
    print((asked.out / "results.md").read_text())
    failed = report.failures(results.data)
    print(*(f"FAILED: {line}" for line in failed), sep="\n", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
