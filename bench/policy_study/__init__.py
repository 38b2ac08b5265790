"""Every system of the papers, trained, calibrated and compared on real data. See `__main__`."""

from bench import ROOT

FOLDER = ROOT / "docs" / "policy_study"
"""What is committed: traces, results and pictures."""
PAGE = ROOT / "docs" / "policy_study.md"
