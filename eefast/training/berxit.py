"""BERxiT: all exits and the last one in turn, and a certainty that is learned beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from eefast.labels import task_loss
from eefast.training.objectives import exit_logits_of, exit_scores_of, register_objective

if TYPE_CHECKING:
    from eefast.multi_exit import MultiExitOutput


def certainty_loss(
    logits: Tensor,  # (B, C)
    score: Tensor,  # (B,)
    labels: Tensor,  # (B,)
) -> Tensor:
    """Squared error of a learned score against whether the exit is right: (q - [argmax p = y])^2.

    Whether it is right is a constant to the score.
    """
    return F.mse_loss(score, (logits.argmax(-1) == labels).to(score.dtype))


@register_objective("berxit")
class BERxiT:
    """BERxiT (Xin et al., EACL 2021): alternating fine-tuning, with learning to exit (LTE).

        odd steps:   sum_i (CE(p_i, y) + (q_i - [argmax p_i = y])^2)
        even steps:  CE(p_L, y)

    q_i is the learned score of exit i (see `eefast.heads.ExitHeads`). Whether the exit is right is
    a constant to it; into the layers below its gradients do flow.

    A step is a call with gradients enabled, and the first is odd: under Trainer that is one batch
    of training on each device. So with gradient accumulation the batches of one update alternate.
    A run that goes on needs `eefast.training.TrainingProgress`, which `fine_tune` has, to go on
    with the right step: without it the first is odd. Evaluation has the loss of odd steps and
    counts for nothing.

    Attributes:
        steps: number of steps so far.

    The released code differs: q is the probability of being wrong, with soft targets, and its
    scorer is trained alone, afterwards.

    Raises:
        ValueError: the model has no scorer, or one output (regression).
    """

    needs_scores: ClassVar[bool] = True

    def __init__(self) -> None:
        self.steps = 0

    def __call__(
        self,
        output: MultiExitOutput,
        labels: Tensor,  # (B,)
    ) -> Tensor:
        """The loss of this step, a scalar."""
        exit_logits, scores = exit_logits_of(output), exit_scores_of(output, "berxit")
        if exit_logits[0].shape[-1] == 1:
            raise ValueError("objective 'berxit' needs classes, got one output (regression)")
        if torch.is_grad_enabled():
            self.steps += 1
            if self.steps % 2 == 0:
                return task_loss(exit_logits[-1], labels)
        losses = []
        for logits, score in zip(exit_logits, scores, strict=True):
            losses.append(task_loss(logits, labels) + certainty_loss(logits, score, labels))
        return torch.stack(losses).sum()
