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

    With `scorer_row`, one more linear D -> 1, shared by all exits, gives a learned score
    q = sigmoid(w x + b) of what the classifier reads, x: with "linear" the hidden vector, with
    "pooler" the pooled one. For policies with `scorer = ScorerKind.ROW`.

    Args:
        kind: "linear" or "pooler".
        widths: D of each exit; L numbers.
        num_classes: C.
        share_pooler: one pooler for all exits; only with kind "pooler".
        dropout: probability, in training only.
        scorer_row: whether there is a learned score.

    Raises:
        ValueError: an unknown kind, or a shared pooler where there is none, or a shared
            pooler or a scorer where widths differ.
    """

    def __init__(
        self,
        kind: HeadKind,
        widths: Sequence[int],
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
        if len(set(widths)) > 1 and (share_pooler or scorer_row):
            what = "share_pooler" if share_pooler else "scorer_row"
            raise ValueError(f"{what} needs exits of one width, got widths {list(widths)}")
        poolers = [] if kind == "linear" else widths[:1] if share_pooler else widths
        self.poolers = nn.ModuleList(nn.Linear(width, width) for width in poolers)
        self.classifiers = nn.ModuleList(nn.Linear(width, num_classes) for width in widths)
        self.scorer = nn.Linear(widths[0], 1) if scorer_row else None
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

    def parameters_of(self, exit: int) -> list[nn.Parameter]:
        """Of the pooler, if there is one, and the classifier of one exit (1-based)."""
        pooler = self._pooler(exit)
        of_pooler = [] if pooler is None else list(pooler.parameters())
        return [*of_pooler, *self.classifiers[exit - 1].parameters()]

    def _pooler(self, exit: int) -> nn.Module | None:
        if not self.poolers:
            return None
        return self.poolers[0 if len(self.poolers) == 1 else exit - 1]
