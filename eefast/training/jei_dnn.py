"""JEI-DNN: gates that decide where to leave, trained jointly with the exits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from eefast.ops import signals
from eefast.policies.values import number
from eefast.training.exit_distribution import exit_distribution, sample_losses
from eefast.training.objectives import Exits, exit_logits_of, register_objective
from eefast.training.stages import Stage, of_other_exits
from eefast.training.two_stage import FIRST, check_other_exits

if TYPE_CHECKING:
    from eefast.multi_exit import MultiExitOutput

RATE = 100.0
"""Gates are this times their parameters: a Trainer has one learning rate, made for the backbone,
and Adam would move a weight of a gate by no more than that in a step."""


def gate_inputs(exit_logits: Sequence[Tensor]) -> Tensor:
    """What the gates read, [L, B, 3] float32: confidence, 1 - normalised entropy, and 1.

    Constants to the gates: no gradient flows from them into the exits.
    """
    inputs = []
    for logits in exit_logits:
        now = signals(logits.detach())
        one = torch.ones_like(now.confidence)
        inputs.append(torch.stack([now.confidence, 1 - now.entropy, one], dim=-1))
    return torch.stack(inputs)


def expected_loss(
    gates: Tensor,  # (W, L - 1, 3): weights of the confidence, of 1 - entropy, and the bias
    inputs: Tensor,  # (L, B, 3), see `gate_inputs`
    losses: Tensor,  # (L, B): of every sample at every exit
    costs: Tensor,  # (L,): of leaving at each exit, relative to the last
    cost_weights: Tensor,  # (W,)
) -> Tensor:
    """sum_l P(exit = l) (CE_l + lambda cost_l), a mean over the batch; [W], for W lambdas at once.

    P(exit = l) = g_l prod_(j<l) (1 - g_j), where g_l is the sigmoid of gates times inputs.
    """
    opening = torch.einsum("wlf,lbf->lwb", gates, inputs[:-1]).sigmoid()
    leaving = exit_distribution(opening)  # (L, W, B)
    spent = cost_weights[:, None] * costs[:, None, None]
    return (leaving * (losses[:, None] + spent)).sum(0).mean(-1)


@register_objective("jei-dnn")
class JEIDNN(nn.Module):
    """JEI-DNN (Regol, Chataoui and Coates, ICLR 2024): exits and gates trained together.

        backbone:         CE(p_L, y)                              trains backbone and last head
        gates and exits:  sum_l P_l (CE(p_l, y) + lambda c_l)     trains the rest

    P_l = g_l prod_(j<l) (1 - g_j) is the probability of leaving at exit l, g_l the sigmoid of a
    linear of exit l's uncertainty, and c_l the cost of the layers up to it over that of all. The
    paper's backbone is trained before, and frozen. `gates` are what policy "jei-dnn" decides by:
    `eefast.calibrate("jei-dnn", trace, gates=model.objective.gates)`.

    Where this differs: gates read the confidence and the entropy; the paper's read the entropy of
    the squared probabilities and the margin between the two highest ones as well, and entropies in
    nats. The paper takes turns, one for the exits with P fixed, and one for the gates, each a
    classifier of "the exit of lowest CE + lambda c is this one or an earlier one"; here both take
    the gradient of the loss itself. The released code balances the gates' classes, scales each
    sample's CE so that weighing by P keeps their sum, and has P_l = max(0, min(g_l, 1 -
    sum_(j<l) g_j)) (see `eefast.policies.JEIDNN`).

    Args:
        exits: of the model.
        cost_weight: lambda, 0 or more: the higher, the earlier samples leave.
        frozen: False for one stage, in which the backbone and the last head learn with the rest.
        warmup: the part of the training, in [0, 1), in which exits learn as if all were equally
            likely, and gates nothing: gates judge exits that have learned something. It needs
            `eefast.training.TrainingProgress`, which `fine_tune` has.

    Raises:
        ValueError: an option out of range, no exits before the last, or one output (regression),
            which has no uncertainty.
    """

    def __init__(
        self,
        exits: Exits,
        *,
        cost_weight: float = 1.0,
        frozen: bool = True,
        warmup: float = 0.25,
    ) -> None:
        super().__init__()
        if exits.num_classes == 1:
            raise ValueError("objective 'jei-dnn' needs classes, got one output (regression)")
        if not isinstance(frozen, bool):
            raise ValueError(f"jei-dnn: frozen must be True or False, got {frozen!r}")
        check_other_exits("jei-dnn", exits)
        self._cost_weight = number("jei-dnn", "cost_weight", cost_weight, 0)
        self._warmup = number("jei-dnn", "warmup", warmup, 0, 1 - 1e-6)
        self._frozen = frozen
        total = list(accumulate(exits.costs))
        self._costs = [total[layer - 1] / total[exits.layers[-1] - 1] for layer in exits.layers]
        self.raw = nn.Parameter(torch.zeros(exits.count - 1, 3))
        self.progress: float | None = None

    @property
    def gates(self) -> Tensor:
        """Weights of the gates of all exits but the last, [L - 1, 3] float32, see `gate_inputs`."""
        return RATE * self.raw.detach().float()

    @property
    def stages(self) -> Sequence[Stage] | None:
        """The backbone first, where it is frozen then."""
        if not self._frozen:
            return None
        return FIRST, Stage("gates and exits", self, _gates_and_other_exits)

    def forward(
        self,
        output: MultiExitOutput,
        labels: Tensor,  # (B,)
    ) -> Tensor:
        """The loss of gates and exits, a scalar."""
        exit_logits = exit_logits_of(output)
        losses = sample_losses(exit_logits, labels)
        if self.progress is not None and self.progress < self._warmup:
            # The gates get a gradient of 0: Trainer wants one for all that it trains.
            return losses.mean() + 0 * self.raw.sum()
        gates, inputs = RATE * self.raw.float(), gate_inputs(exit_logits)
        costs, weight = losses.new_tensor(self._costs), losses.new_tensor([self._cost_weight])
        return expected_loss(gates[None], inputs, losses, costs, weight)[0]


def _gates_and_other_exits(model: Any) -> Iterable[nn.Parameter]:
    return [*of_other_exits(model), *model.objective.parameters()]
