"""Backbone first, exits then: DeeBERT's and FastBERT's training."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from eefast.labels import task_loss
from eefast.training.objectives import exit_logits_of, register_objective
from eefast.training.stages import Stage, of_backbone_and_last_exit, of_other_exits

if TYPE_CHECKING:
    from eefast.multi_exit import MultiExitOutput


def last_exit(
    output: MultiExitOutput,
    labels: Tensor,  # (B,)
) -> Tensor:
    """The task loss of the last exit."""
    return task_loss(exit_logits_of(output)[-1], labels)


def other_exits(
    output: MultiExitOutput,
    labels: Tensor,  # (B,)
) -> Tensor:
    """The task losses of all exits but the last, added up."""
    return torch.stack([task_loss(z, labels) for z in exit_logits_of(output)[:-1]]).sum()


def self_distillation(
    output: MultiExitOutput,
    labels: Tensor,  # (B,): not read
) -> Tensor:
    """sum_(i<L) KL(p_i, p_L), with KL(p, q) = sum_c p_c ln(p_c / q_c); the teacher p_L is fixed.

    Raises:
        ValueError: one output (regression), which has no distribution.
    """
    *students, teacher = (z.float().log_softmax(-1) for z in exit_logits_of(output))
    if teacher.shape[-1] == 1:
        raise ValueError("objective 'fastbert' needs classes, got one output (regression)")
    teacher = teacher.detach()
    return torch.stack(
        [(student.exp() * (student - teacher)).sum(-1).mean() for student in students]
    ).sum()


FIRST = Stage("backbone", last_exit, of_backbone_and_last_exit)
"""The model as if it had no other exits."""

THEN_EXITS = Stage("exits", other_exits, of_other_exits)
"""The other exits, each on its own: the backbone and the last exit are frozen."""


@register_objective("deebert")
class DeeBERT:
    """DeeBERT (Xin et al., ACL 2020, section 3.2): two stages.

        backbone:  CE(p_L, y)                  trains backbone and last head
        exits:     sum_(i<L) CE(p_i, y)        trains all other heads

    In the second stage the last exit stays as good as that of a model without other exits, but
    dropout is on in the frozen layers too, as in the released code. What heads share with the last
    (`share_pooler`) is frozen with it. With one output (C = 1) CE is the squared error.
    """

    stages: ClassVar[tuple[Stage, ...]] = (FIRST, THEN_EXITS)


@register_objective("fastbert")
class FastBERT:
    """FastBERT (Liu et al., ACL 2020, sections 3.3.2 and 3.3.3): two stages.

        backbone:  CE(p_L, y)                  trains backbone and last head (the teacher)
        exits:     sum_(i<L) KL(p_i, p_L)      trains all other heads (the students)

    KL(p_i, p_L) = sum_c p_i ln(p_i / p_L), as the paper writes it; the released package has the
    other direction, KL(p_L, p_i), and trains its students with ten times the learning rate. The
    second stage reads no labels: to train it on texts without, give them any. The paper's heads are
    larger, with a self-attention of their own. Dropout and shared poolers: as for DeeBERT.

    Raises:
        ValueError: one output (regression).
    """

    stages: ClassVar[tuple[Stage, ...]] = (
        FIRST,
        Stage("exits", self_distillation, of_other_exits),
    )
