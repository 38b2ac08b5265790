"""Whether BEEM's exits meet the condition of Theorem 3.1, on a trace."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from eefast.policies import BEEM
from eefast.traces import ExitTrace, simulate


class Condition(NamedTuple):
    """Theorem 3.1 at one exit, and what it promises."""

    exit: int  # 1-based
    error_rate: float  # q_i, over all samples
    bound: float  # NaN: no sample leaves here, whatever its predictions did
    holds: bool  # q_i < bound; where no sample leaves, there is nothing to promise
    leaving: int  # samples that leave here
    leaving_error_rate: float  # of those, NaN if there are none; promised to be below p


def theorem_condition(policy: BEEM, trace: ExitTrace) -> list[Condition]:
    """The condition of Theorem 3.1 (section 3.5) for each exit but the last:

        q_i < a_i / (a_i + (1/p - 1) b_i^(i-1))

    p is the error rate of the last exit and q_i that of exit i, both over the whole trace; b_i is
    the largest of q_1 ... q_i over the smallest. a_i is the probability of leaving at exit i for
    the samples whose prediction has changed once up to it, over that for those whose prediction has
    not changed (A_i^1 / A_i^0 of appendix A.1). If it holds at all exits, the paper concludes that
    those who leave early err less often than p.

    The appendix takes b_i over q_1 ... q_(i-1), the section over q_1 ... q_i, as here. Its C_t is
    defined as the number of agreements and then called that of changes; here it is changes. A
    probability of which the trace has no case counts as 0. p and the q_i are frequencies, so that a
    condition that just holds may not hold on other data.

    Args:
        policy: with the thresholds to judge.
        trace: validation data.

    Raises:
        ValueError: an empty trace, or a policy for another number of exits or classes.
    """
    if not len(trace.labels):
        raise ValueError("the trace holds no samples to judge the condition on")
    outcome = simulate(policy, trace)
    predictions = trace.logits.argmax(-1)
    changes = torch.zeros_like(predictions[0])
    rates = (1 - trace.accuracies()).tolist()
    p, found = rates[-1], []
    odds = (1 - p) / p if p else math.inf
    for i in range(1, trace.num_exits):
        if i > 1:
            changes = changes + (predictions[i - 1] != predictions[i - 2])
        here = outcome.exit == i
        chance = [_share(here[changes == c]) for c in (0, 1)]
        bound = _bound(chance[0], chance[1], odds, rates[:i])
        wrong = outcome.prediction != trace.labels
        found.append(
            Condition(
                i,
                rates[i - 1],
                bound,
                math.isnan(bound) or rates[i - 1] < bound,
                int(here.sum()),
                _share(wrong[here]) if here.any() else math.nan,
            )
        )
    return found


def _share(true: torch.Tensor) -> float:
    """How many of some are true; 0 if there are none."""
    return true.double().mean().item() if len(true) else 0.0


def _bound(unchanged: float, changed: float, odds: float, rates: list[float]) -> float:
    """a / (a + odds b^(i-1)) with a = changed / unchanged, multiplied out so that a may be inf."""
    if not unchanged and not changed:
        return math.nan
    spread = max(rates) / min(rates) if min(rates) else (math.inf if max(rates) else 1.0)
    power = spread ** (len(rates) - 1) if len(rates) > 1 else 1.0
    against = unchanged * odds * power if unchanged and odds else 0.0  # 0 * inf is NaN
    return changed / (changed + against) if changed else 0.0
