"""Backbone first, exits then: DeeBERT's and FastBERT's training."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from eefast.labels import task_loss
from eefast.training.joint import fixed
from eefast.training.objectives import Exits, exit_logits_of, register_objective
from eefast.training.stages import Stage, of_backbone_and_last_exit, of_other_exits

if TYPE_CHECKING:
    from eefast.multi_exit import MultiExitOutput


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
    """sum_(i<L) KL(p_i, p_L), with KL(p, q) = sum_c p_c ln(p_c / q_c); the teacher p_L is fixed."""
    *students, teacher = (z.float().log_softmax(-1) for z in exit_logits_of(output))
    teacher = teacher.detach()
    return torch.stack(
        [(student.exp() * (student - teacher)).sum(-1).mean() for student in students]
    ).sum()


FIRST = Stage("backbone", fixed, of_backbone_and_last_exit)
"""The model as if it had no other exits."""

THEN_EXITS = Stage("exits", other_exits, of_other_exits)
"""The other exits, each on its own: the backbone and the last exit are frozen."""


def check_other_exits(name: str, exits: Exits) -> None:
    """Raises ValueError: a model with the last exit alone."""
    if exits.count < 2:
        raise ValueError(
            f"objective {name!r} trains exits before the last, and the model has none; for the "
            "last alone: objective='fixed'"
        )


@register_objective("deebert")
class DeeBERT:
    """DeeBERT (Xin et al., ACL 2020, fine-tuning): two stages.

        backbone:  CE(p_L, y)                  trains backbone and last head
        exits:     sum_(i<L) CE(p_i, y)        trains all other heads

    In the second stage the last exit stays as good as that of a model without other exits, but
    dropout is on in the frozen layers too, as in the released code. What heads share with the last
    (`share_pooler`) is frozen with it. With one output (C = 1) CE is the squared error.

    Raises:
        ValueError: no exits before the last.
    """

    stages: ClassVar[tuple[Stage, ...]] = (FIRST, THEN_EXITS)

    def __init__(self, exits: Exits) -> None:
        check_other_exits("deebert", exits)


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
        ValueError: no exits before the last, or one output (regression): no distribution.
    """

    stages: ClassVar[tuple[Stage, ...]] = (
        FIRST,
        Stage("exits", self_distillation, of_other_exits),
    )

    def __init__(self, exits: Exits) -> None:
        check_other_exits("fastbert", exits)
        if exits.num_classes == 1:
            raise ValueError("objective 'fastbert' needs classes, got one output (regression)")
