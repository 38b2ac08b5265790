"""PCEE-BERT-v2: depth-weighted task losses, and a confidence that is learned beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from eefast.labels import task_loss
from eefast.training.berxit import certainty_loss
from eefast.training.objectives import (
    depth_weighted,
    exit_logits_of,
    exit_scores_of,
    register_objective,
)

if TYPE_CHECKING:
    from eefast.multi_exit import MultiExitOutput


@register_objective("pcee-v2")
class PCEEv2:
    """PCEE-BERT-v2 (Zhang et al., Findings of NAACL 2022, section 4.6.1), Eq. 1 with a confidence.

        L_i = CE(p_i, y) + (q_i - [argmax p_i = y])^2,    summed as sum(i L_i) / sum(i)

    q_i is the learned score of exit i (see `eefast.heads.ExitHeads`), and whether the exit is right
    is a constant to it. The paper says that the confidence "is learned along with the training of
    intermediate classifiers", "following BERxiT", and no more: BERxiT's loss is taken, every step
    trains all exits (BERxiT's alternate), and both losses of an exit weigh alike. The paper has a
    layer of its own after each block; here one linear is shared by all exits, as in BERxiT.

    Raises:
        ValueError: the model has no scorer, or one output (regression).
    """

    needs_scores: ClassVar[bool] = True

    def __call__(
        self,
        output: MultiExitOutput,
        labels: Tensor,  # (B,)
    ) -> Tensor:
        """The loss, a scalar."""
        exit_logits, scores = exit_logits_of(output), exit_scores_of(output, "pcee-v2")
        if exit_logits[0].shape[-1] == 1:
            raise ValueError("objective 'pcee-v2' needs classes, got one output (regression)")
        return depth_weighted(
            [
                task_loss(logits, labels) + certainty_loss(logits, score, labels)
                for logits, score in zip(exit_logits, scores, strict=True)
            ]
        )
