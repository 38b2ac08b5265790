"""Thresholds by quota: how many samples shall leave at each exit, and those that want to most."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

STEPS = 60
"""Of the bisection: the ratio is then as exact as floats have it."""

STEEPEST = 60.0
"""|ln ratio| at which all samples leave at one end, whatever the prior."""


def geometric(
    prior: Tensor,  # (L,) greater than 0; constant: a geometric series
    log_ratio: float,
) -> Tensor:
    """Shares p_k ~ prior_k * ratio^k that add up to 1, [L] float64."""
    depth = torch.arange(len(prior), dtype=torch.float64, device=prior.device)
    return (prior.double().log() + log_ratio * depth).softmax(0)


def largest_log_ratio(meets: Callable[[float], bool]) -> float:
    """The largest ln ratio, up to `STEEPEST`, that `meets` a budget; -`STEEPEST` if none does.

    By bisection: what is spent grows with the ratio.
    """
    low, high = -STEEPEST, STEEPEST
    if meets(high):
        return high
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if meets(middle) else (low, middle)
    return low


def cut(
    scores: Tensor,  # (N,) without NaN
    quota: int,  # 0 to N
) -> float:
    """The threshold that the `quota` highest scores reach, and those that equal the last of them.

    It lies halfway to the next lower score: on a score itself, rounding would decide at inference,
    where the same sample may be computed in another batch. Infinity for a quota of 0.
    """
    if not quota:
        return math.inf
    ranked = scores.sort(descending=True).values
    lowest = ranked[quota - 1]
    lower = ranked[ranked < lowest]
    if not len(lower):
        return lowest.item()
    middle = lowest - (lowest - lower[0]) / 2
    return (middle if middle > lower[0] else lowest).item()


def quota_thresholds(
    scores: Tensor,  # (L, N): of every sample at every exit
    shares: Tensor,  # (L,): of the samples that shall leave at each exit; sum 1
) -> list[float]:
    """Thresholds of all exits, leaving at score >= t (EENet, Algorithm 1; MSDNet's are alike).

    At each exit those of the samples still there that score highest leave, round(N p_k) of them,
    and the threshold is the lowest score among them; here, halfway to the next (see `cut`). At the
    last exit it is -infinity.

    Where the algorithm as printed would lose samples or let too many go: a quota of 0 lets none
    leave (infinity); a quota larger than what is left takes all that is left; and samples that
    share the lowest score leave together, as they will at inference. A NaN score never leaves.
    """
    samples = scores.shape[1]
    left = torch.ones(samples, dtype=torch.bool, device=scores.device)
    thresholds = []
    for score, share in zip(scores[:-1], shares[:-1], strict=True):
        able = score[left & ~score.isnan()]
        quota = min(round(samples * share.item()), len(able))
        thresholds.append(cut(able, quota))
        left &= ~(score >= thresholds[-1])
    return [*thresholds, -math.inf]


def budget_thresholds(
    scores: Tensor,  # (L, N)
    prior: Tensor,  # (L,) greater than 0
    costs: Tensor,  # (L,) float64, ascending: of a sample that leaves at each exit
    budget: float,
) -> list[float]:
    """`quota_thresholds` for p_k ~ prior_k * ratio^k, the largest ratio that meets the budget.

    The mean cost of the samples is then at most `budget`, and as near to it as quotas of whole
    samples get. With a constant prior that is MSDNet's geometric exit distribution (Huang et al.,
    2018; the ratio may exceed 1, for budgets near the whole network's). For less than the first
    exit costs all leave there.
    """

    def thresholds_at(log_ratio: float) -> list[float]:
        return quota_thresholds(scores, geometric(prior, log_ratio))

    return thresholds_at(
        largest_log_ratio(lambda r: _mean_cost(scores, thresholds_at(r), costs) <= budget)
    )


def _mean_cost(scores: Tensor, thresholds: list[float], costs: Tensor) -> float:
    """Mean cost of samples that leave at the first exit where score >= threshold."""
    limits = torch.tensor(thresholds, device=scores.device)[:, None]
    leaves = scores >= limits
    leaves[-1] = True
    first = leaves.int().argmax(0)  # of equals the first
    return costs.to(scores.device)[first].mean().item()
