"""PALBERT: the expected loss under a learned distribution of exits, held near a geometric one."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from eefast.policies.values import number
from eefast.training.exit_distribution import exit_distribution, sample_losses
from eefast.training.objectives import exit_logits_of, exit_scores_of, register_objective

if TYPE_CHECKING:
    from eefast.multi_exit import MultiExitOutput

_TINY = 1e-12
"""Probabilities below this have the logarithm of this."""


@register_objective("palbert")
class PALBERT:
    """PALBERT (Balagansky and Gavrilov, NeurIPS 2022), the loss of PonderNet:

        L = sum_i P_i CE(p_i, y) + beta KL(P, geometric(prior)),    P_i = q_i prod_(j<i) (1 - q_j)

    q_i (the paper's lambda_i) is the learned score of exit i (see `eefast.heads.ExitHeads`); the
    last exit takes what is left, whatever its score, as does the prior's: prior (1 - prior)^(i-1).
    Both terms are means over the batch. With one output (C = 1) CE is the squared error.

    Where the released code differs: its lambda layer is three layers with tanh and a linear, over
    the pooled vectors of this layer and the one before; here it is the heads' scorer, one linear of
    what the classifier reads, shared by all exits (as in that code's PonderNet baseline). One
    pooler and one classifier serve all its layers: `attach_exits(..., share_head=True)`. Its KL is
    sum prior ln(prior / P); here it is PonderNet's, sum P ln(P / prior). Its last layer keeps its
    own q_L, so that its P adds up to less than 1, and from where P has added up to 0.95 on, each
    layer has P = 0.05 / L.

    Args:
        beta: weight of the divergence; 0.5 in the released code's PALBERT command.
        prior: of the geometric distribution, in (0, 1); 0.1 is the released code's default.

    Raises:
        ValueError: the model has no scorer, or an option out of range.
    """

    needs_scores: ClassVar[bool] = True

    def __init__(self, *, beta: float = 0.5, prior: float = 0.1) -> None:
        self._beta = number("palbert", "beta", beta, 0)
        self._prior = number("palbert", "prior", prior, 1e-6, 1 - 1e-6)

    def __call__(
        self,
        output: MultiExitOutput,
        labels: Tensor,  # (B,)
    ) -> Tensor:
        """The loss, a scalar."""
        losses = sample_losses(exit_logits_of(output), labels)
        scores = torch.stack(list(exit_scores_of(output, "palbert")))
        leaving = exit_distribution(scores[:-1])  # (L, B)
        prior = exit_distribution(torch.full_like(scores[:-1], self._prior))
        divergence = (leaving * (leaving.clamp(min=_TINY).log() - prior.log())).sum(0)
        return ((leaving * losses).sum(0) + self._beta * divergence).mean()
