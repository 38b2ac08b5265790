"""Choosing among settings of a policy by what they do on validation data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from eefast.policies import Confidence, Entropy, Policy
from eefast.policies.pabee import PABEE
from eefast.policies.pcee import PCEE
from eefast.simulation import simulate
from eefast.trace import ExitTrace

P = TypeVar("P", bound=Policy)


def best(settings: Sequence[P], trace: ExitTrace, tolerance: float | None = None) -> P:
    """The best of some settings on a trace.

    Args:
        settings: policies to choose from.
        trace: validation data.
        tolerance: None: the highest accuracy, among equals the fastest. A number: the fastest
            whose accuracy is at most that far below the last exit's (0.005 is half a point),
            among equals the most accurate; if none is that good, the highest accuracy.

    Raises:
        ValueError: no settings, or a negative tolerance.
    """
    if not settings:
        raise ValueError("the space to search must hold at least one setting, got none")
    if tolerance is not None and not tolerance >= 0:
        raise ValueError(f"tolerance must be 0 or more, got {tolerance}")
    outcomes = [(s.accuracy, s.layer_speedup) for s in (simulate(p, trace) for p in settings)]
    ranked = range(len(settings))
    if tolerance is not None:
        floor = trace.accuracies()[-1].item() - tolerance - 1e-9  # 0.8 - 0.1 is above 0.7
        good = [i for i in ranked if outcomes[i][0] >= floor]
        if good:
            return settings[max(good, key=lambda i: outcomes[i][::-1])]
    return settings[max(ranked, key=lambda i: outcomes[i])]


def settings_of(policy: str, trace: ExitTrace) -> list[Policy]:
    """The settings of a policy that `calibrate` tries, for a trace's number of exits.

    PABEE: every patience from 1 to L - 1; PCEE: from 2, since with 1 it is the entropy policy.
    Thresholds on probabilities and entropies: 0.02 to 0.98 in steps of 0.02.

    Raises:
        ValueError: the policy has no space to search.
    """
    thresholds = [i / 50 for i in range(1, 50)]
    longest = max(trace.num_exits - 1, 1)
    patiences = range(1, longest + 1)
    if policy == "pabee":
        return [PABEE(t) for t in patiences]
    if policy == "pcee":
        return [PCEE(t, tau) for t in patiences[min(1, longest - 1) :] for tau in thresholds]
    if policy == "entropy":
        return [Entropy(tau) for tau in thresholds]
    if policy == "confidence":
        return [Confidence(tau) for tau in thresholds]
    raise ValueError(
        f"there is no calibration for policy {policy!r}; there is one for "
        "'beem', 'confidence', 'entropy', 'pabee' and 'pcee'"
    )
