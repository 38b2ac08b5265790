"""The policies of the demo, and how each is calibrated."""

from __future__ import annotations

from typing import Any

from eefast.calibration import calibrate
from eefast.evaluation import Chooser
from eefast.policies import Policy
from eefast.traces import ExitTrace

MAX_ACCURACY_DROP = 0.005
"""The rule: of the settings that lose at most half a point against the last exit, the fastest."""


def _calibrated(policy: str, **options: Any) -> Chooser:
    def choose(trace: ExitTrace) -> Policy:
        return calibrate(policy, trace, **options)

    return choose


def _by_the_rule(policy: str, **options: Any) -> Chooser:
    return _calibrated(policy, max_accuracy_drop=MAX_ACCURACY_DROP, **options)


EARLY_EXIT = {
    "BEEM-A": _by_the_rule("beem", weights="accuracy"),
    "BEEM-C": _by_the_rule("beem", weights="cost"),
    "PABEE": _by_the_rule("pabee"),
    "PCEE": _by_the_rule("pcee"),
    "entropy": _by_the_rule("entropy"),
}
FIXED_DEPTH = {"fixed depth": _by_the_rule("budgeted")}
EQUATION_3 = {
    "BEEM-A, Eq. 3": _calibrated("beem", weights="accuracy"),
    "BEEM-C, Eq. 3": _calibrated("beem", weights="cost"),
}
"""BEEM as in its paper: thresholds bound the errors of the samples that exit, not the speed."""

CHOOSERS = {**EARLY_EXIT, **FIXED_DEPTH, **EQUATION_3}
STORED = ("BEEM-A", "PABEE", "PCEE", "entropy", "fixed depth")
"""Kept with the model, which has room for one policy of a kind."""
