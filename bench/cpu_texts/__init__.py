"""The demo's model on its test texts: early exit in packed layers against OpenVINO.

See `__main__`.
"""

from bench import ROOT

RESULTS = ROOT / "docs" / "cpu_texts.json"
PAGE = ROOT / "docs" / "cpu_texts.md"

TASK, SEED, POLICY, DEPTH = "tweets", 1, "beem", 4
"""What is compared: the policy as the demo calibrated it, and a fixed depth that is as accurate."""

TIMED = 100
"""Texts of one turn, the first of the test split."""

OWN, PRECISIONS = "own layers", ("float32", "bfloat16", "int8")
NEVER, EXITS, CUT = "full depth", "BEEM-A", f"fixed depth {DEPTH}"
PEERS = {"OpenVINO fp32": "openvino", "OpenVINO int8": "openvino-int8"}
"""By name, the stem of the exported files."""
