"""EEIC: exits trained as an ensemble, each to be right and to differ from those before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from eefast.labels import task_loss
from eefast.training.objectives import exit_logits_of, register_objective

if TYPE_CHECKING:
    from eefast.multi_exit import MultiExitOutput


@register_objective("eeic", "eeic-patience")
def eeic(
    output: MultiExitOutput,
    labels: Tensor,  # (B,)
    *,
    diversity: float = 0.2,
    weights: Literal["equal", "depth"] = "equal",
    last_differs: bool = True,
) -> Tensor:
    """EEIC (Sun et al., 2021), Eq. 14 and 24: relevancy and diversity, for voting and patience.

        L = sum_i alpha_i CE(x_i, y) - sum_(i>=2) beta_i min_(j<i) CE(x_i, x_j)

    x_i is the distribution of exit i, CE(x_i, x_j) = - sum_c x_j ln x_i as in the paper's Eq. 15
    and 16. The minimum is taken for each sample, and both sums are means over the batch. Gradients
    flow into both distributions: the paper writes no stop. With one output (C = 1) distributions
    are constant and only the task loss is left.

    Args:
        output: of the model.
        labels: classes, or numbers if C = 1.
        diversity: lambda, in [0, 1). 0.2 is best in the paper's section 4.3; it tries 0.1 to 0.5.
        weights: "equal": alpha_i = 1, beta_i = lambda (Eq. 14; the paper's choice for ALBERT).
            "depth": alpha_i = i / sum(1..L), beta_i = lambda alpha_i (Eq. 24 with PABEE's weights;
            its choice for BERT, of which it says alpha_i = i, and not what beta_i is).
        last_differs: False for beta_L = 0, which the paper found better at times (A.4).

    Raises:
        ValueError: an option outside its range.
    """
    if not 0 <= diversity < 1:
        raise ValueError(f"eeic: diversity must be in [0, 1), got {diversity}")
    if weights not in ("equal", "depth"):
        raise ValueError(f"eeic: weights must be 'equal' or 'depth', got {weights!r}")
    exit_logits = exit_logits_of(output)
    exits = len(exit_logits)
    total = exits * (exits + 1) / 2
    logs = torch.stack([logits.float().log_softmax(-1) for logits in exit_logits])  # (L, B, C)
    probabilities = logs.exp()
    loss = torch.zeros((), device=logs.device, dtype=torch.float32)
    for i, logits in enumerate(exit_logits):
        alpha = 1.0 if weights == "equal" else (i + 1) / total
        loss = loss + alpha * task_loss(logits, labels)
        if i and (last_differs or i + 1 < exits):
            entropies = (probabilities[:i] * -logs[i]).sum(-1)  # (i, B): CE(x_i, x_j) for j < i
            loss = loss - alpha * diversity * entropies.amin(0).mean()
    return loss
