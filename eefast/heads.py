"""Exit heads: what turns the hidden vector of an exit into logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from eefast.ops import HeadWeights

HeadKind = Literal["linear", "pooler"]


class ExitHeads(nn.Module):
    """The heads of all exits of a model.

    "linear": dropout, then D -> C. "pooler": dense D -> D and tanh, dropout, then D -> C, as
    BERT's own pooler and classifier; one pooler per exit, or one shared by all.

    Args:
        kind: "linear" or "pooler".
        widths: D of each exit; L numbers.
        num_classes: C.
        share_pooler: one pooler for all exits; only with kind "pooler".
        dropout: probability, in training only.

    Raises:
        ValueError: an unknown kind, or a shared pooler where there is none or widths differ.
    """

    def __init__(
        self,
        kind: HeadKind,
        widths: Sequence[int],
        num_classes: int,
        share_pooler: bool = False,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if kind not in get_args(HeadKind):
            raise ValueError(f"head must be one of {get_args(HeadKind)}, got {kind!r}")
        if share_pooler and kind != "pooler":
            raise ValueError(f"share_pooler needs head='pooler', got head={kind!r}")
        if share_pooler and len(set(widths)) > 1:
            raise ValueError(f"share_pooler needs exits of one width, got widths {list(widths)}")
        poolers = [] if kind == "linear" else widths[:1] if share_pooler else widths
        self.poolers = nn.ModuleList(nn.Linear(width, width) for width in poolers)
        self.classifiers = nn.ModuleList(nn.Linear(width, num_classes) for width in widths)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        exit: int,  # 1-based
        hidden: Tensor,  # (B, D)
    ) -> Tensor:
        """Logits of one exit, [B, C]."""
        pooler = self._pooler(exit)
        if pooler is not None:
            hidden = torch.tanh(pooler(hidden))
        logits: Tensor = self.classifiers[exit - 1](self.dropout(hidden))
        return logits

    @torch.no_grad()
    def start_from(self, exit: int, pooler: nn.Linear | None, classifier: nn.Linear) -> None:
        """Copy a trained head into that of one exit (1-based); a bias that is not there is zero.

        Raises:
            ValueError: weights of other shapes than the exit's.
        """
        pairs: list[tuple[Any, nn.Linear]] = [(self.classifiers[exit - 1], classifier)]
        own = self._pooler(exit)
        if own is not None and pooler is not None:
            pairs.append((own, pooler))
        for ours, theirs in pairs:
            if ours.weight.shape != theirs.weight.shape:
                got, wanted = list(theirs.weight.shape), list(ours.weight.shape)
                raise ValueError(f"exit {exit}: got a trained head of {got}; wanted {wanted}")
            ours.weight.copy_(theirs.weight)
            if theirs.bias is None:
                ours.bias.zero_()
            else:
                ours.bias.copy_(theirs.bias)

    def weights(self, exit: int) -> HeadWeights:
        """The weights of one exit's head as the exit step takes them; views, not copies."""
        pooler, classifier = self._pooler(exit), self.classifiers[exit - 1]
        pooler_weights = (None, None) if pooler is None else (pooler.weight, pooler.bias)
        detached = [
            None if w is None else w.detach()
            for w in (*pooler_weights, classifier.weight, classifier.bias)
        ]
        return HeadWeights(*detached)  # type: ignore[arg-type]

    def _pooler(self, exit: int) -> nn.Module | None:
        if not self.poolers:
            return None
        return self.poolers[0 if len(self.poolers) == 1 else exit - 1]
