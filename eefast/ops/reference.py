"""`impl="reference"`: the ops in plain PyTorch, the specification of all the others."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from eefast.ops.kinds import ScorerKind
from eefast.ops.recurrence import Values, reached
from eefast.ops.step import Step


def exit_step(
    hidden: Tensor,  # (R, D), (R, T, D), or (M, D) with offsets
    offsets: Tensor | None,  # (R,) int64: row r of the call is hidden[offsets[r]]
    pooler_weight: Tensor | None,  # (D, D)
    pooler_bias: Tensor | None,  # (D,)
    weight: Tensor,  # (C, D); (C + 1, D) with a ROW scorer
    bias: Tensor | None,  # (C,); (C + 1,)
    cascade: Tensor | None,  # (C, C) float32
    scorer: Tensor | None,  # (H, C + exit + 4) float32, with a NETWORK scorer
    table: Tensor,  # (L, 3) float32: weight, threshold, tau of every exit
    rows: Tensor | None,  # (R,) int64: row r belongs to sample rows[r]; None: to sample r
    step: int,  # Step.pack()
    score: Tensor,  # (N,) float32
    prediction: Tensor,  # (N,) int32
    exit_layer: Tensor,  # (N,) int32
    logits: Tensor,  # (N, C) float32
    running: Tensor,  # (L,) bool
    votes: Tensor | None,  # (N, C) float32
    memory: Tensor | None,  # (N, M) float32
    control: Tensor | None,  # not used here
) -> None:
    """One exit for all samples handed in; see `eefast.ops.exit_step` for the contract."""
    unpacked = Step.unpack(step)
    exit, recurrence = unpacked.exit, unpacked.recurrence
    rows, x = _running(hidden, offsets, rows, exit_layer)
    if pooler_weight is not None:
        x = F.linear(x, pooler_weight.float(), None if pooler_bias is None else pooler_bias.float())
        x = x.tanh()
    z, q = F.linear(x, weight.float(), None if bias is None else bias.float()), None
    if recurrence.scorer == ScorerKind.ROW:
        z, q = z[:, :-1], z[:, -1].sigmoid()
    if cascade is not None:
        z = z + F.linear(logits[rows], cascade)

    before = Values(
        score[rows],
        prediction[rows],
        None if votes is None else votes[rows],
        None if memory is None else memory[rows],
        logits[rows, 0] if logits.shape[1] == 1 else None,
    )
    after, answer, exits_here = recurrence.step(before, z, table, exit, q=q, scorer=scorer)

    score[rows] = after.score
    prediction[rows] = torch.where(exits_here, answer.argmax(-1), after.prediction).int()
    if votes is not None and after.votes is not None:
        votes[rows] = after.votes
    if memory is not None and after.memory is not None:
        memory[rows] = after.memory
    if cascade is not None or logits.shape[1] == 1:
        logits[rows] = z  # for the next exit
    logits[rows[exits_here]] = answer[exits_here]
    exit_layer[rows[exits_here]] = unpacked.layer
    running[exit - 1] |= ~exits_here.all()


def similarity_step(
    hidden: Tensor,  # (R, D), (R, T, D), or (M, D) with offsets
    offsets: Tensor | None,  # (R,) int64: row r of the call is hidden[offsets[r]]
    table: Tensor,  # (L, 3) float32: weight, threshold, tau of every exit
    rows: Tensor | None,  # (R,) int64: row r belongs to sample rows[r]; None: to sample r
    step: int,  # Step.pack()
    previous: Tensor,  # (N, D) float32
    score: Tensor,  # (N,) float32
    exit_layer: Tensor,  # (N,) int32
    running: Tensor,  # (L,) bool
) -> None:
    """One exit for all samples handed in; see `eefast.ops.similarity_step` for the contract."""
    unpacked = Step.unpack(step)
    exit = unpacked.exit
    rows, x = _running(hidden, offsets, rows, exit_layer)
    weight, threshold, _ = table[exit - 1]
    now = weight * F.cosine_similarity(x, previous[rows], eps=1e-8)
    exits_here = reached(now, threshold, strict=unpacked.strict) | (exit == len(table))

    previous[rows] = x
    score[rows] = now
    exit_layer[rows[exits_here]] = unpacked.layer
    running[exit - 1] |= ~exits_here.all()


def _running(
    hidden: Tensor, offsets: Tensor | None, rows: Tensor | None, exit_layer: Tensor
) -> tuple[Tensor, Tensor]:
    """The samples of the call that are still running, [R'], and their vectors, [R', D] float32."""
    if offsets is not None:
        hidden = hidden[offsets]
    elif hidden.dim() == 3:
        hidden = hidden[:, 0]
    if rows is None:
        rows = torch.arange(len(hidden), device=hidden.device)
    still_here = exit_layer[rows] == 0
    return rows[still_here], hidden[still_here].float()
