"""EENet's scheduler: scores, exit distribution and thresholds learned for a budget."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from eefast.calibration.costs import Costs
from eefast.calibration.features import features_of, scores_of
from eefast.calibration.goal import Goal
from eefast.calibration.quotas import budget_thresholds
from eefast.ops.signals import NEGATIVE_SLOPE
from eefast.policies import EENet
from eefast.policies.eenet import network
from eefast.policies.values import number, whole
from eefast.traces import ExitTrace

LEARNING_RATE = 3e-3
L2 = 0.01
"""Weight of the L2 regularisation, the paper's; decoupled from Adam's steps, see below."""

PATIENCE = 50
"""Epochs without a lower loss after which training ends, the paper's."""

EPOCHS = 1000

BUDGETS = 8
"""How many are tried where none is given, evenly spaced between the first and the last exit's."""


def calibrate_eenet(
    trace: ExitTrace,
    goal: Goal,
    *,
    scorer: Literal["network", "max"] = "network",
    distribution: Literal["learned", "geometric"] = "learned",
    alpha: float = 1e-2,
    beta: float = 1e-4,
    hidden: float = 2.0,
    seed: int = 0,
) -> EENet:
    """EENet's scorers and thresholds, trained on a trace of validation data for a budget.

    Minimises L_g + alpha L_budget + beta L_CE (Eq. 3, 4, 11 to 15), then lets those leave at each
    exit that score highest there (Algorithm 1). Deterministic.

    Where this differs from the paper: Eq. 12 gets the minus sign that it lacks. Training takes the
    whole trace at once, over which Eq. 11 to 15 sum, at Adam's rate 0.003, for at most 1000 epochs
    (the paper: stochastic gradient descent or Adam, it says both, at 1e-4 in batches of a size that
    it does not name). L2 is decoupled (AdamW): as a part of the gradient, which Adam scales up, it
    would leave the scores constant. Earlier scores b_k are constants to the scorers that read them,
    as in the released code; the paper leaves it open. And the mean of the learned r_k is tilted
    until it costs what the budget allows (see `eefast.calibration.quotas.budget_thresholds`):
    L_budget is one loss among three, and alone leaves a rest.

    Args:
        trace: every exit's logits on validation data.
        goal: `budget` and `costs`, or `target_speedup`, a budget in layers. Without either eight
            budgets are tried, and the best taken (see `eefast.calibration.goal.Goal.best`).
        scorer: "max": the confidence instead of the trained score (Figure 5).
        distribution: "geometric": p_k ~ ratio^k instead of the learned one (Figure 5). With both,
            nothing is trained, and the rule is MSDNet's.
        alpha: of L_budget. 1e-2 is the paper's for texts; for images it has 1e-1.
        beta: of L_CE. 1e-4 is the paper's for texts; for images it has 1e-3.
        hidden: D_h / D, the width of the hidden layer for one feature. 2 is the paper's for texts;
            for images it has 0.5.
        seed: of the initial weights.

    Raises:
        ValueError: an argument outside its range, or a budget that not even exit 1 keeps.
    """
    if scorer not in ("network", "max"):
        raise ValueError(f"eenet: scorer must be 'network' or 'max', got {scorer!r}")
    if distribution not in ("learned", "geometric"):
        raise ValueError(
            f"eenet: distribution must be 'learned' or 'geometric', got {distribution!r}"
        )
    for name, value in (("alpha", alpha), ("beta", beta)):
        number("eenet", name, value, 0, 1e6)
    number("eenet", "hidden", hidden, 0, 100)
    whole("eenet", "seed", seed, 0)
    policy = EENet(math.inf)
    if goal.target_speedup is not None:
        leaving = Costs((1.0,) * trace.exit_layers[-1]).of_leaving(policy, trace.exit_layers)
        # A float above L / target_speedup would miss it.
        budgets = [leaving[-1].item() / goal.target_speedup * (1 - 1e-12)]
    else:
        leaving = goal.costs_of(trace).of_leaving(policy, trace.exit_layers)
        low, high = leaving[0].item(), leaving[-1].item()
        steps = range(1, BUDGETS + 1)
        budgets = [low + (high - low) * i / (BUDGETS + 1) for i in steps]
        if goal.budget is not None:
            budgets = [goal.budget]
    cheapest = leaving[0].item()
    if budgets[0] <= 0 or budgets[0] < cheapest * (1 - 1e-9):
        raise ValueError(
            f"eenet: the budget must be more than 0 and at least {cheapest:g}, what leaving at "
            f"exit 1 costs; got {budgets[0]:g} ({goal})"
        )
    settings = []
    for budget in budgets:
        shares = torch.ones_like(leaving)
        if scorer == "network" or distribution == "learned":
            networks, learned = fit(
                trace, leaving, budget, alpha=alpha, beta=beta, hidden=hidden, seed=seed
            )
            if scorer == "network":
                policy = EENet(math.inf, networks)
            if distribution == "learned":
                shares = learned
        thresholds = budget_thresholds(scores_of(policy, trace).cpu(), shares, leaving, budget)
        settings.append(dataclasses.replace(policy, thresholds=thresholds))
    return goal.best(settings, trace)


@torch.inference_mode(False)
@torch.enable_grad()
def fit(
    trace: ExitTrace,
    costs: Tensor,  # (L,) float64: of a sample that leaves at each exit
    budget: float,
    *,
    alpha: float,
    beta: float,
    hidden: float,
    seed: int,
) -> tuple[tuple[Tensor, ...], Tensor]:
    """The trained network of each exit, and p_k, the mean of the trained r_k, [L] float64.

    Training ends after 50 epochs without a lower loss; the weights of the lowest one are taken.
    """
    features = features_of(trace).cpu()
    right = (trace.logits.argmax(-1) == trace.labels).T.float().cpu()  # (N, L): q of Eq. 3
    costs = costs.float()
    weights = _initial(features.shape[-1], len(features), hidden, seed)
    optimizer = torch.optim.AdamW(
        [w for exit in weights for w in exit],
        lr=LEARNING_RATE,
        weight_decay=L2,
        fused=True,  # one call for these many small tensors
    )
    lowest, waited = math.inf, 0
    found = [[w.detach().clone() for w in exit] for exit in weights]
    for _ in tqdm(range(EPOCHS), "training EENet's scheduler", delay=5, disable=None, leave=False):
        optimizer.zero_grad()
        loss = scheduler_loss(*_branches(features, weights), right, costs, budget, alpha, beta)
        if loss.item() < lowest:
            lowest, waited = loss.item(), 0
            found = [[w.detach().clone() for w in exit] for exit in weights]
        else:
            waited += 1
            if waited == PATIENCE:
                break
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        _, assignment = _branches(features, found)
    networks = tuple(network(shared, utility) for shared, utility, _ in found)
    return networks, assignment.double().softmax(1).mean(0)


def _initial(features: int, exits: int, hidden: float, seed: int) -> list[list[Tensor]]:
    """Of every exit W^sh [D_h, D], W^g [D_h] and W^h [D_h], as torch initialises a linear."""
    generator = torch.Generator().manual_seed(seed)
    weights = []
    for exit in range(exits):
        inputs = features + exit
        units = max(1, round(hidden * inputs))
        shapes = ((units, inputs), (units,), (units,))
        weights.append(
            [
                torch.empty(shape, dtype=torch.float32, device="cpu")
                .uniform_(-(shape[-1] ** -0.5), shape[-1] ** -0.5, generator=generator)
                .requires_grad_()
                for shape in shapes
            ]
        )
    return weights


def _branches(
    features: Tensor,  # (L, N, C + 3)
    weights: list[list[Tensor]],
) -> tuple[Tensor, Tensor]:
    """Eq. 8 to 10 before sigmoid and softmax: those of q and of r, each [N, L]."""
    utilities, assignments = [], []
    earlier = features.new_empty(features.shape[1], 0)
    for own, (shared, utility, assignment) in zip(features, weights, strict=True):
        inputs = torch.cat([own, earlier], dim=1)
        units = F.leaky_relu(inputs @ shared.T, NEGATIVE_SLOPE)
        utilities.append(units @ utility)
        assignments.append(units @ assignment)
        earlier = torch.cat([earlier, utilities[-1].detach().sigmoid()[:, None]], dim=1)
    return torch.stack(utilities, 1), torch.stack(assignments, 1)


def scheduler_loss(
    utility: Tensor,  # (N, L): of q before the sigmoid
    assignment: Tensor,  # (N, L): of r before the softmax
    right: Tensor,  # (N, L): 1 where the exit is right (Eq. 3), else 0
    costs: Tensor,  # (L,): of a sample that leaves at each exit
    budget: float,
    alpha: float,
    beta: float,
) -> Tensor:
    """L_g + alpha L_budget + beta L_CE, Eq. 11 to 15."""
    samples, exits = right.shape
    logs = assignment.log_softmax(1)
    assigned = logs.exp()
    reached = 1 - (assigned.cumsum(1) - assigned).detach()
    weights = reached / reached.sum(0).clamp(min=1e-12)  # Eq. 13
    errors = F.binary_cross_entropy_with_logits(utility, right, reduction="none")
    scoring = (weights * errors).sum() / exits
    spending = (budget - (assigned @ costs).mean()).abs() / budget
    total = right.sum(1, keepdim=True)
    targets = torch.where(total > 0, right / total.clamp(min=1), 1 / exits)  # Eq. 4
    imitation = -(logs * targets).sum() / (samples * exits)
    return scoring + alpha * spending + beta * imitation
