"""The demo's model on batches of its test texts: ragged batches with exits against OpenVINO.

See `__main__`.
"""

from bench import ROOT

RESULTS = ROOT / "docs" / "cpu_batches.json"
PAGE = ROOT / "docs" / "cpu_batches.md"

SIZES = (8, 32, 128)
"""Texts of a batch."""

TEXTS = 384
"""The first of the test split, in its order."""
