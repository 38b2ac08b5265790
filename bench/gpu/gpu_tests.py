"""Runs tests/gpu in a process of its own and counts."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from bench import ROOT
from bench.gpu.environment import clean_environment


def run_tests(folder: Path, seconds: float) -> dict[str, Any]:
    """Count passed, failed and skipped tests, and name what failed; a failed test does not raise.

    Args:
        folder: gets tests.xml and tests.log.
        seconds: at most.
    """
    xml = folder / "tests.xml"
    xml.unlink(missing_ok=True)
    # The conftest in tests/ is for tests on the CPU, and needs hypothesis.
    command = [
        sys.executable, "-m", "pytest", "tests/gpu", "-m", "gpu", "--confcutdir=tests/gpu", "-q",
        "-p", "no:cacheprovider", f"--junitxml={xml.resolve()}",
    ]  # fmt: skip
    if importlib.util.find_spec("xdist"):
        command += ["-n", "4"]  # most of their time is Triton compiling
    with (folder / "tests.log").open("wb") as log:
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=clean_environment(), stdout=log, stderr=log, timeout=seconds
            )
        except subprocess.TimeoutExpired:
            return {"error": f"not done after {seconds:.0f} s; see tests.log"}
    if not xml.exists():
        return {"error": f"pytest ended with status {done.returncode}; see tests.log"}
    return counts(xml) | {"status": done.returncode}


def counts(xml: Path) -> dict[str, Any]:
    """What a junit file says."""
    cases = list(ElementTree.parse(xml).getroot().iter("testcase"))
    failed, skipped = [], 0
    for case in cases:
        for bad in (*case.iter("failure"), *case.iter("error")):
            name = f"{case.get('classname')}::{case.get('name')}"
            failed.append({"test": name, "message": (bad.get("message") or "")[:500]})
            break
        else:
            skipped += case.find("skipped") is not None
    return {
        "passed": len(cases) - len(failed) - skipped,
        "failed": len(failed),
        "skipped": skipped,
        "failures": failed[:20],
    }
