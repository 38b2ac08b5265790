"""`eefast::exit_step`: one exit for all samples of a batch, in one launch.

The op reads the hidden vectors of the running samples, computes the exit's head, the signals, the
recurrence and the decision, and writes the running state in place; samples that exit get their
logits and their exit layer. It returns nothing, so that it can be captured.

There are two ways to call it: `exit_step(...)` validates everything first; a runtime, which calls
once per layer with its own tensors, gets the bare overload from `implementation(...)` once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from eefast.ops.arguments import check_exit, check_layer, check_rows, expect, rows_of
from eefast.ops.implementations import Impl, implementation
from eefast.ops.kinds import Accumulate, Gain, Keep, ScorerKind
from eefast.ops.recurrence import Recurrence
from eefast.ops.state import ExitState, HeadWeights
from eefast.ops.step import Step


def exit_step(
    hidden: Tensor,  # (R, D), (R, T, D) or, with offsets, (M, D); float32, float16 or bfloat16
    head: HeadWeights,  # of hidden's dtype
    table: Tensor,  # (L, 3) float32
    state: ExitState,  # of N samples; written in place
    *,
    exit: int,
    layer: int,
    keep: Keep,
    gain: Gain,
    strict: bool = False,
    accumulate: Accumulate = Accumulate.NONE,
    scorer_kind: ScorerKind = ScorerKind.NONE,
    scorer: Tensor | None = None,  # (H, C + exit + 4) float32, with a NETWORK scorer
    rows: Tensor | None = None,  # (R,) int64
    offsets: Tensor | None = None,  # (R,) int64
    impl: Impl = "auto",
) -> None:
    """Run one exit for R rows and update `state` in place.

    For every row whose sample is still running: logits of the head (accumulated in float32; a
    cascade adds cascade @ z before), accumulator, softmax, confidence, argmax (ties: lowest index),
    normalised entropy, agreement with the exit before (the same argmax; with one class also
    |z - z before| < tau), the learned score, S = keep * S + weight * gain, and the decision. z
    before is what the head of the exit before left in `state.logits`. A sample that exits gets its
    logits and `exit_layer = layer`, once; an exited sample is never touched again. At the last exit
    (`exit == len(table)`) every sample exits. `state.running[exit - 1]` becomes true if any row
    handed in is still running.

    Args:
        hidden: the vectors that the head reads; or the hidden states of all tokens [R, T, D], of
            which it reads each row's first; or flattened tokens [M, D], of which it reads
            `offsets`. Rows may be strided; no copy is made.
        head: weights of this exit's head; with a ROW scorer its last row is the scorer's.
        table: weight, threshold and tau of every exit (`Policy.table`).
        state: `ExitState.start(...)` before the first exit. It has `votes` if and only if the
            policy gathers something or has a NETWORK scorer, and `memory` [N, M >= L] if it has a
            NETWORK scorer (a ROW scorer may have it).
        exit: 1-based number of the exit, the row of `table`.
        layer: 1-based layer after which the exit stands, written to `state.exit_layer`.
        keep, gain, strict, accumulate, scorer_kind: the policy's row (`Recurrence`).
        scorer: weights of this exit's network (`eefast.ops.signals.network_score`).
        rows: row r belongs to sample `rows[r]`, each at most once; None: to sample r.
        offsets: row r of the call is `hidden[offsets[r]]`.
        impl: "auto", or the implementation to use; nothing falls back silently.

    Raises:
        ValueError, TypeError: an argument does not fit; `state` is unchanged.
        RuntimeError: the implementation is not built here.
    """
    r = len(hidden if offsets is None else offsets)
    classes = state.logits.shape[-1]
    op = implementation(impl, hidden.device, hidden.dtype, rows=r, classes=classes)
    check_layer(layer)
    recurrence = Recurrence(keep, gain, strict, accumulate, scorer_kind)
    _validate(hidden, offsets, head, scorer, table, state, exit, rows, recurrence)
    step = Step(exit, layer, *recurrence).pack()
    op(hidden, offsets, *head, scorer, table, rows, step, *state)


def _validate(
    hidden: Tensor,
    offsets: Tensor | None,
    head: HeadWeights,
    scorer: Tensor | None,
    table: Tensor,
    state: ExitState,
    exit: int,
    rows: Tensor | None,
    recurrence: Recurrence,
) -> None:
    recurrence.check()
    if recurrence.by_similarity:
        raise ValueError("gain=Gain.SIMILARITY is for eefast.ops.similarity_step, not for a head")
    r = rows_of(hidden, offsets)
    d, n, exits, on = hidden.shape[-1], len(state.score), len(table), hidden.device
    c = state.logits.shape[-1] if state.logits.dim() else 0
    if c == 0 or exits == 0:
        raise ValueError(f"there must be at least one class and one exit, got {c} and {exits}")
    if c == 1 and recurrence.compares and recurrence.accumulate != Accumulate.NONE:
        raise ValueError(
            "with one class AGREE compares the exits' own outputs and needs Accumulate.NONE, got "
            f"Accumulate.{Accumulate(recurrence.accumulate).name}"
        )
    check_exit(exit, table, on)
    _validate_head(head, c + (recurrence.scorer == ScorerKind.ROW), c, d, hidden.dtype, on)
    _validate_state(state, n, c, exits, on)
    _validate_parts(scorer, state, n, c, exit, exits, recurrence, on)
    check_rows(rows, r, n, on)


def _validate_head(
    head: HeadWeights, outputs: int, c: int, d: int, dtype: torch.dtype, device: torch.device
) -> None:
    expect("head.weight", head.weight, [outputs, d], dtype, device)
    if head.cascade is not None:
        expect("head.cascade", head.cascade, [c, c], torch.float32, device)
    if head.bias is not None:
        expect("head.bias", head.bias, [outputs], dtype, device)
    if head.pooler_weight is not None:
        expect("head.pooler_weight", head.pooler_weight, [d, d], dtype, device)
    if head.pooler_bias is not None:
        if head.pooler_weight is None:
            raise ValueError("head.pooler_bias needs head.pooler_weight, got None for the latter")
        expect("head.pooler_bias", head.pooler_bias, [d], dtype, device)


def _validate_state(state: ExitState, n: int, c: int, exits: int, device: torch.device) -> None:
    expect("state.score", state.score, [n], torch.float32, device)
    expect("state.prediction", state.prediction, [n], torch.int32, device)
    expect("state.exit_layer", state.exit_layer, [n], torch.int32, device)
    expect("state.logits", state.logits, [n, c], torch.float32, device)
    expect("state.running", state.running, [exits], torch.bool, device)
    if state.control is not None:
        expect("state.control", state.control, [exits, 2], torch.int64, device)


def _validate_parts(
    scorer: Tensor | None,
    state: ExitState,
    n: int,
    c: int,
    exit: int,
    exits: int,
    recurrence: Recurrence,
    device: torch.device,
) -> None:
    """The scorer's weights, the votes and the memory: each where the recurrence asks for it."""
    kind = ScorerKind(recurrence.scorer)
    if (scorer is not None) != (kind is ScorerKind.NETWORK):
        given = "None" if scorer is None else f"{list(scorer.shape)}"
        raise ValueError(
            f"scorer must be weights with ScorerKind.NETWORK and None otherwise, got {given} with "
            f"{kind!s}"
        )
    if scorer is not None:
        units = len(scorer) if scorer.dim() else 0
        expect("scorer", scorer, [units, c + exit + 4], torch.float32, device)
    if (state.votes is not None) != recurrence.uses_votes:
        raise ValueError(
            "state.votes must be given if and only if the policy gathers something or has a "
            f"NETWORK scorer, got {'None' if state.votes is None else list(state.votes.shape)} "
            f"with {Accumulate(recurrence.accumulate)!s} and {kind!s}"
        )
    if state.votes is not None:
        expect("state.votes", state.votes, [n, c], torch.float32, device)
    if state.memory is None:
        if recurrence.needs_memory:
            raise ValueError("state.memory must be given with a NETWORK scorer, got None")
        return
    if kind is ScorerKind.NONE:
        raise ValueError(
            f"state.memory holds a scorer's scores, got {list(state.memory.shape)} without a scorer"
        )
    columns = max(exits, state.memory.shape[-1] if state.memory.dim() else 0)
    expect("state.memory", state.memory, [n, columns], torch.float32, device)
