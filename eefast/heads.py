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

    With `share_head` all that is one for all exits, the last one's among them: MuE's way.

    With `scorer_row`, one more linear D -> 1, shared by all exits, gives a learned score
    q = sigmoid(w x + b) of what the classifier reads, x: with "linear" the hidden vector, with
    "pooler" the pooled one. For policies with `scorer = ScorerKind.ROW`.

    With `cascade` (Zero Time Waste, Wolczyk et al., NeurIPS 2021, section 3.1) each head also reads
    what the one before gave, through which no gradient flows back (sg):

        z_i = W_i x_i + b_i + U_i sg(z_(i-1)),    1 < i < L,    U_i: C x C

    The first head has nothing to read. The last is that of the model that exits were added to: no
    part of the cascade, so that it answers as it did, whatever the other heads learn. (So it is in
    the released code for images; that for texts has a cascade up to the last layer's head. Both put
    z_(i-1) through a LayerNorm first; here it is read as it is.)

    Args:
        kind: "linear" or "pooler".
        widths: D of each exit; L numbers.
        num_classes: C.
        share_pooler: one pooler for all exits; only with kind "pooler".
        dropout: probability, in training only.
        scorer_row: whether there is a learned score.
        share_head: one head for all exits.
        cascade: whether heads read those before; with two exits or one there is nothing to read.

    Raises:
        ValueError: an unknown kind, or a shared pooler where there is none, or a shared
            pooler, a scorer or a shared head where widths differ, or a cascade of a shared head.
    """

    def __init__(
        self,
        kind: HeadKind,
        widths: Sequence[int],
        num_classes: int,
        share_pooler: bool = False,
        dropout: float = 0.1,
        scorer_row: bool = False,
        share_head: bool = False,
        cascade: bool = False,
    ) -> None:
        super().__init__()
        if kind not in get_args(HeadKind):
            raise ValueError(f"head must be one of {get_args(HeadKind)}, got {kind!r}")
        if share_pooler and kind != "pooler":
            raise ValueError(f"share_pooler needs head='pooler', got head={kind!r}")
        shared = dict(share_pooler=share_pooler, scorer_row=scorer_row, share_head=share_head)
        what = next((name for name, asked in shared.items() if asked), None)
        if len(set(widths)) > 1 and what is not None:
            raise ValueError(f"{what} needs exits of one width, got widths {list(widths)}")
        if cascade and share_head:
            raise ValueError("cascade needs a head for each exit, got share_head=True")
        heads = widths[:1] if share_head else widths
        poolers = [] if kind == "linear" else widths[:1] if share_pooler else heads
        self.poolers = nn.ModuleList(nn.Linear(width, width) for width in poolers)
        self.classifiers = nn.ModuleList(nn.Linear(width, num_classes) for width in heads)
        self.cascades = nn.ModuleList(
            nn.Linear(num_classes, num_classes, bias=False) for _ in widths[1:-1] if cascade
        )
        self.scorer = nn.Linear(widths[0], 1) if scorer_row else None
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        exit: int,  # 1-based
        hidden: Tensor,  # (B, D)
        before: Tensor | None = None,  # (B, C): logits of the exit before, None for the first
    ) -> tuple[Tensor, Tensor | None]:
        """Logits [B, C] of one exit, and its learned scores [B] float32 if there is a scorer.

        Raises:
            ValueError: no logits of the exit before, for a head that reads them.
        """
        pooler = self._pooler(exit)
        if pooler is not None:
            hidden = torch.tanh(pooler(hidden))
        hidden = self.dropout(hidden)
        score = None if self.scorer is None else self.scorer(hidden).squeeze(-1).float().sigmoid()
        logits, cascade = _of(self.classifiers, exit)(hidden), self._cascade(exit)
        if cascade is not None:
            if before is None:
                raise ValueError(
                    f"before: exit {exit} reads the logits of the exit before, got None"
                )
            logits = logits + cascade(before.detach())
        return logits, score

    @torch.no_grad()
    def start_from(self, exit: int, pooler: nn.Linear | None, classifier: nn.Linear) -> None:
        """Copy a trained head into that of one exit (1-based); a bias that is not there is zero.

        So is what the exit reads of the one before: it answers as the trained head does.

        Raises:
            ValueError: weights of other shapes than the exit's.
        """
        pairs: list[tuple[Any, nn.Linear]] = [(_of(self.classifiers, exit), classifier)]
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
        cascade = self._cascade(exit)
        if cascade is not None:
            cascade.weight.zero_()

    def weights(self, exit: int, scorer_row: bool = False) -> HeadWeights:
        """The weights of one exit's head as the exit step takes them; views of the parameters.

        With `scorer_row` the scorer is the last row of the classifier, [C + 1, D]; two parameters
        become one tensor, so classifier weights are then a copy, made for each plan anew. So are
        those of a cascade in low precision, which the exit step takes as float32.

        Raises:
            ValueError: a scorer row of heads that have none.
        """
        pooler: Any = self._pooler(exit)
        classifier: Any = _of(self.classifiers, exit)
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
        # The first reads zeros, through any weights: that it has some is to leave its own logits.
        cascade = self._cascade(max(exit, 2))
        read = None if cascade is None else cascade.weight.float()
        taken = (*pooler_weights, weight, bias, read)
        detached = [None if w is None else w.detach() for w in taken]
        return HeadWeights(*detached)  # type: ignore[arg-type]

    def parameters_of(self, exit: int) -> list[nn.Parameter]:
        """Of one exit (1-based): its classifier, and its pooler and cascade if it has them."""
        parts = self._pooler(exit), _of(self.classifiers, exit), self._cascade(exit)
        return [parameter for part in parts if part is not None for parameter in part.parameters()]

    def _pooler(self, exit: int) -> nn.Module | None:
        return _of(self.poolers, exit) if self.poolers else None

    def _cascade(self, exit: int) -> Any:
        """What one exit reads the logits of the exit before with, or None."""
        return self.cascades[exit - 2] if 1 < exit <= len(self.cascades) + 1 else None


def _of(modules: nn.ModuleList, exit: int) -> Any:
    """That of one exit (1-based), or the one that all share."""
    return modules[0 if len(modules) == 1 else exit - 1]
