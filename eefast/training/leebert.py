"""LeeBERT: exits that learn from one another, with learned weights of who teaches whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from eefast.labels import task_loss
from eefast.policies.values import number
from eefast.training.objectives import Exits, exit_logits_of, register_objective

if TYPE_CHECKING:
    from eefast.multi_exit import MultiExitOutput

RATE = 100.0
"""Teachers' logits are this times their parameters, see `eefast.training.jei_dnn.RATE`."""


@register_objective("leebert")
class LeeBERT(nn.Module):
    """LeeBERT (Zhu, ACL-IJCNLP 2021): cross-level distillation with learned loss weights.

        L = sum_s (CE(p_s, y) + distillation * sum_(t != s) w_st KL(p_t, p_s)),   sum_t w_st = 1

    Every exit s learns from every other exit t, deeper or not; the teacher's p_t is a constant. The
    weights are a softmax of parameters of the objective, and are learned by another loss than the
    model (bi-level): for the weights, the task loss after the step that distillation is about to
    make counts. To first order such a step, taken in the student's logits, changes it by
    - sum_t w_st <p_s - p_t, p_s - y>, which the weights minimise, with p a constant.

    Where this differs: the paper (no code was found) splits the training data in two, and its
    cross-level optimization takes turns, with gradients of both halves for the weights. It learns
    the weights of task losses, too. Here every batch trains both, and the weights' gradient is that
    of a batch that the model has not yet taken its step on. Task losses weigh 1: learned like the
    rest they would win, since no teacher moves an exit closer to the labels than the labels. The
    loss that is reported is the model's alone. With one output (C = 1) there is no distribution,
    and only the task loss.

    Args:
        exits: of the model.
        distillation: weight of all teachers of an exit together.

    Raises:
        ValueError: distillation is negative.
    """

    def __init__(self, exits: Exits, *, distillation: float = 1.0) -> None:
        super().__init__()
        self._distillation = number("leebert", "distillation", distillation, 0)
        self.raw = nn.Parameter(torch.zeros(exits.count, exits.count))

    @property
    def weights(self) -> Tensor:
        """w_st of student s (row) and teacher t (column), [L, L] float32; 0 on the diagonal."""
        return self._weights().detach()

    def _weights(self) -> Tensor:
        itself = torch.eye(len(self.raw), dtype=torch.bool, device=self.raw.device)
        # A finite number: a row that has only itself is no NaN.
        scores = (RATE * self.raw.float()).masked_fill(itself, -1e9)
        weights: Tensor = scores.softmax(1).masked_fill(itself, 0.0)
        return weights

    def forward(
        self,
        output: MultiExitOutput,
        labels: Tensor,  # (B,)
    ) -> Tensor:
        """The loss, a scalar."""
        exit_logits = exit_logits_of(output)
        tasks = torch.stack([task_loss(logits, labels) for logits in exit_logits]).sum()
        logs = torch.stack([logits.float().log_softmax(-1) for logits in exit_logits])  # (L, B, C)
        if logs.shape[-1] == 1:
            return tasks + 0 * self.raw.sum()
        weights, teachers = self._weights(), logs.detach()
        probabilities = teachers.exp()
        # Of student s and teacher t, [L, L].
        cross = torch.einsum("tbc,sbc->st", probabilities, -logs) / logs.shape[1]
        entropy = torch.special.entr(probabilities).sum(-1).mean(-1)
        divergence = (weights.detach() * (cross - entropy)).sum()
        truth = torch.nn.functional.one_hot(labels.long(), logs.shape[-1])
        to_truth = probabilities - truth  # (L, B, C): p_s - y
        own = (probabilities * to_truth).sum(-1).mean(-1)
        gain = own[:, None] - torch.einsum("tbc,sbc->st", probabilities, to_truth) / logs.shape[1]
        steering = -(weights * gain).sum()
        loss: Tensor = tasks + self._distillation * divergence + steering - steering.detach()
        return loss
