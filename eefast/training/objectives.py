"""Training objectives of multi-exit models: one function per paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from eefast.labels import task_loss

Objective = Callable[[Sequence[Tensor], Tensor], Tensor]
"""(exit logits: L times [B, C], labels [B]) -> loss, a scalar."""


def weighted(
    exit_logits: Sequence[Tensor],  # L times (B, C)
    labels: Tensor,  # (B,)
) -> Tensor:
    """Depth-weighted task loss, sum(i L_i) / sum(i): Kaya et al. (ICML 2019), PABEE (Eq. 4)."""
    return _depth_weighted([task_loss(logits, labels) for logits in exit_logits])


def beem(
    exit_logits: Sequence[Tensor],  # L times (B, C)
    labels: Tensor,  # (B,)
) -> Tensor:
    """BEEM (Eq. 1): L_i = CE(p_i, y) + KL(p_i, p_L), summed as sum(i L_i) / sum(i).

    KL(p_i, p_L) = sum_c p_i ln(p_i / p_L), as the paper writes it. The last exit is the teacher:
    no gradient flows into p_L through this term. With one output (C = 1) the distribution is
    constant and only the task loss is left.
    """
    teacher = exit_logits[-1].detach().float().log_softmax(-1)
    losses = []
    for logits in exit_logits:
        student = logits.float().log_softmax(-1)
        divergence = (student.exp() * (student - teacher)).sum(-1).mean()
        losses.append(task_loss(logits, labels) + divergence)
    return _depth_weighted(losses)


OBJECTIVES: dict[str, Objective] = {"beem": beem, "weighted": weighted}


def objective(name: str) -> Objective:
    """The objective of that name.

    Raises:
        ValueError: there is none; the message lists those there are.
    """
    if name not in OBJECTIVES:
        raise ValueError(f"unknown objective {name!r}; there are {sorted(OBJECTIVES)}")
    return OBJECTIVES[name]


def _depth_weighted(losses: Sequence[Tensor]) -> Tensor:
    weights = range(1, len(losses) + 1)
    total = sum(weight * loss for weight, loss in zip(weights, losses, strict=True))
    assert isinstance(total, Tensor)
    return total / sum(weights)
