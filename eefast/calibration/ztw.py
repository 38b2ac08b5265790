"""Calibration of Zero Time Waste: the weights of the ensembles, then a threshold."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from eefast.calibration.goal import Goal
from eefast.calibration.search import search
from eefast.policies import ZTW
from eefast.policies.values import probabilities
from eefast.traces import ExitTrace


def calibrate_ztw(
    trace: ExitTrace,
    goal: Goal,
    *,
    plain_last: bool = False,
    space: Iterable[ZTW] | None = None,
) -> ZTW:
    """The weights of lowest cross-entropy on the trace (section 3.2), and the best threshold.

    Args:
        trace: validation data. (The paper fits on training data; exits whose backbone has seen
            them are too sure of them.)
        goal: what the best threshold is.
        plain_last: whether the last exit answers by itself, as in the released code.
        space: settings to choose from instead, weights included.

    Raises:
        ValueError: as `Goal.best`, or plain_last is neither True nor False.
        TypeError: the space holds something else than such policies.
    """
    if space is None:
        weights = tuple(ensemble_weights(trace, plain_last=plain_last).tolist())
        space = [ZTW(threshold, weights, plain_last) for threshold in probabilities()]
    return search(ZTW, trace, goal, space=space)


def ensemble_weights(trace: ExitTrace, *, plain_last: bool = False) -> Tensor:
    """The weight of each exit, [L] float64, the largest of them 1.

    They minimise the sum of the cross-entropies of all ensembles (without the last exit's, if that
    answers by itself), by L-BFGS from equal weights.
    """
    exits = trace.num_exits - plain_last
    z, labels = trace.logits[:exits].double(), trace.labels
    free = torch.zeros(len(z), dtype=torch.float64, device=z.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([free], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        weights = _bounded(free)
        means = (weights[:, None, None] * z).cumsum(0) / weights.cumsum(0)[:, None, None]
        index = labels.expand(len(z), -1)[..., None]
        total = -means.log_softmax(-1).gather(2, index).mean(1).sum()
        total.backward()
        return total

    with torch.enable_grad():
        if exits > 1:
            optimizer.step(loss)
    found = _bounded(free.detach())
    last = found.new_ones(int(plain_last))  # of any weight: it stands alone
    return torch.cat([found / found.amax(), last]) if exits else last


def _bounded(free: Tensor) -> Tensor:
    """Weights from e^-10 to e^10: an exit of no use would be driven to 0 without end."""
    return (10 * (free / 10).tanh()).exp()
