"""JEI-DNN's gates: those that were trained with the exits, or trained on a trace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from eefast.calibration.goal import Goal
from eefast.policies import JEIDNN
from eefast.policies.values import number, probabilities
from eefast.traces import ExitTrace
from eefast.training.exit_distribution import sample_losses
from eefast.training.jei_dnn import expected_loss, gate_inputs

OPEN = 0.5
"""Where a gate opens in the released code."""

COST_WEIGHTS = tuple(10 ** (i / 4 - 2) for i in range(13))
"""Values of lambda that are tried, 0.01 to 10."""

LEARNING_RATE = 0.1
EPOCHS = 200
HIGHEST_LOSS = 100.0
"""In nats; infinite logits would have more."""


def calibrate_jei_dnn(
    trace: ExitTrace,
    goal: Goal,
    *,
    gates: Tensor | None = None,
    cost_weight: float | None = None,
) -> JEIDNN:
    """Policy "jei-dnn" for a trace of validation data. Deterministic.

    The gates of 13 values of lambda are trained on the trace, each set to minimise
    sum_l P_l (CE_l + lambda cost_l) as objective "jei-dnn" does, but with the exits as they are
    (and with Adam over the whole trace, for 200 steps). The best of them is taken. They open at
    0.5, as in the released code; with a limit, from 0.02 to 0.98, so that it is met more closely.

    Args:
        trace: every exit's logits on validation data.
        goal: a limit and a metric.
        gates: [L - 1, 3], trained with the exits: `model.objective.gates`.
        cost_weight: lambda, 0 or more.

    Raises:
        ValueError: gates of another number of exits, a negative lambda, both, or as `Goal.best`.
    """
    if gates is not None and cost_weight is not None:
        raise ValueError(f"jei-dnn: gates or cost_weight, got both (cost_weight={cost_weight})")
    if gates is not None:
        several = [gates]
    elif cost_weight is not None:
        several = fit(trace, goal, [number("jei-dnn", "cost_weight", cost_weight, 0)])
    else:
        several = fit(trace, goal, COST_WEIGHTS)
    thresholds = [OPEN, *(probabilities() if goal.limited else ())]
    settings = [
        JEIDNN(trained, threshold, num_classes=trace.num_classes)
        for trained in several
        for threshold in thresholds
    ]
    return goal.best(settings, trace)


@torch.inference_mode(False)
@torch.enable_grad()
def fit(trace: ExitTrace, goal: Goal, cost_weights: Sequence[float]) -> list[Tensor]:
    """Gates trained on a trace for each lambda, [L - 1, 3] float32."""
    exits = tuple(trace.logits.cpu())
    on_cpu: dict[str, Any] = dict(dtype=torch.float32, device="cpu")
    inputs = gate_inputs(exits).nan_to_num(0.0)
    losses = sample_losses(exits, trace.labels.cpu()).nan_to_num(0.0).clamp(max=HIGHEST_LOSS)
    gates = torch.zeros(len(cost_weights), len(exits) - 1, 3, requires_grad=True, **on_cpu)
    every = JEIDNN(gates.detach()[0], num_classes=trace.num_classes)
    leaving = goal.costs_of(trace).of_leaving(every, trace.exit_layers)
    costs = (leaving / leaving[-1].clamp(min=1e-12)).float()
    weights = torch.tensor(cost_weights, **on_cpu)
    optimizer = torch.optim.Adam([gates], lr=LEARNING_RATE)
    steps = range(EPOCHS if len(exits) > 1 else 0)
    for _ in tqdm(steps, "training JEI-DNN's gates", delay=5, disable=None, leave=False):
        optimizer.zero_grad()
        expected_loss(gates, inputs, losses, costs, weights).sum().backward()
        optimizer.step()
    return list(gates.detach())
