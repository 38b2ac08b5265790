"""Exit heads: what turns the hidden vector of an exit into logits."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from eefast.ops import HeadWeights

HeadKind = Literal["linear", "pooler"]


class ExitHeads(nn.Module):
    """The heads of all exits of a model.

    "linear": dropout, then D -> C. "pooler": dense D -> D and tanh, dropout, then D -> C, as
    BERT's own pooler and classifier; one pooler per exit, or one shared by all.

    With `scorer_row`, one more linear D -> 1, shared by all exits, gives a learned score
    q = sigmoid(w x + b) of what the classifier reads, x: with "linear" the hidden vector, with
    "pooler" the pooled one. For policies with `scorer = ScorerKind.ROW`.

    Args:
        kind: "linear" or "pooler".
        num_exits: L.
        hidden_size: D.
        num_classes: C.
        share_pooler: one pooler for all exits; only with kind "pooler".
        dropout: probability, in training only.
        scorer_row: whether there is a learned score.

    Raises:
        ValueError: an unknown kind, or a shared pooler where there is none.
    """

    def __init__(
        self,
        kind: HeadKind,
        num_exits: int,
        hidden_size: int,
        num_classes: int,
        share_pooler: bool = False,
        dropout: float = 0.1,
        scorer_row: bool = False,
    ) -> None:
        super().__init__()
        if kind not in get_args(HeadKind):
            raise ValueError(f"head must be one of {get_args(HeadKind)}, got {kind!r}")
        if share_pooler and kind != "pooler":
            raise ValueError(f"share_pooler needs head='pooler', got head={kind!r}")
        poolers = 0 if kind == "linear" else 1 if share_pooler else num_exits
        self.poolers = nn.ModuleList(nn.Linear(hidden_size, hidden_size) for _ in range(poolers))
        self.classifiers = nn.ModuleList(
            nn.Linear(hidden_size, num_classes) for _ in range(num_exits)
        )
        self.scorer = nn.Linear(hidden_size, 1) if scorer_row else None
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        exit: int,  # 1-based
        hidden: Tensor,  # (B, D)
    ) -> tuple[Tensor, Tensor | None]:
        """Logits [B, C] of one exit, and its learned scores [B] float32 if there is a scorer."""
        pooler = self._pooler(exit)
        if pooler is not None:
            hidden = torch.tanh(pooler(hidden))
        hidden = self.dropout(hidden)
        score = None if self.scorer is None else self.scorer(hidden).squeeze(-1).float().sigmoid()
        return self.classifiers[exit - 1](hidden), score

    def weights(self, exit: int, scorer_row: bool = False) -> HeadWeights:
        """The weights of one exit's head as the exit step takes them; views of the parameters.

        With `scorer_row` the scorer is the last row of the classifier, [C + 1, D]; two parameters
        become one tensor, so classifier weights are then a copy, made for each plan anew.

        Raises:
            ValueError: a scorer row of heads that have none.
        """
        pooler: Any = self._pooler(exit)
        classifier: Any = self.classifiers[exit - 1]
        pooler_weights = (None, None) if pooler is None else (pooler.weight, pooler.bias)
        weight, bias = classifier.weight, classifier.bias
        if scorer_row:
            if self.scorer is None:
                raise ValueError(
                    "the policy needs learned scores, and the model's heads have no scorer: "
                    "eefast.attach_exits(..., scorer_row=True), then train with an objective "
                    "that teaches it, such as 'berxit'"
                )
            weight = torch.cat([weight, self.scorer.weight])
            bias = torch.cat([bias, self.scorer.bias])
        detached = [None if w is None else w.detach() for w in (*pooler_weights, weight, bias)]
        return HeadWeights(*detached)  # type: ignore[arg-type]

    def _pooler(self, exit: int) -> nn.Module | None:
        if not self.poolers:
            return None
        return self.poolers[0 if len(self.poolers) == 1 else exit - 1]
