"""`eefast::similarity_step`: exits by how little a layer turned the hidden vector, without a head.

MuE (Tang et al., CVPR 2023) compares the hidden vectors of consecutive layers: where their cosine
similarity is above a threshold, further layers would change little.

    S_i = w_i * cos(h_i, h_(i-1))      exit at the first S_i > theta_i, or at the last exit

No head is computed on the way. `state.previous` keeps the vector that each sample exited with, and
one exit step over it, with the last head, gives the answers:

    state = SimilarityState.start(embedded[:, 0], exits=depth)
    for layer in 1..depth:
        hidden = layers[layer](hidden)
        similarity_step(hidden, table, state, exit=layer, layer=layer, strict=True)
    answer = ExitState.start(len(state.previous), classes, exits=1)
    exit_step(
        state.previous.to(head.weight.dtype), head, table[-1:], answer,
        exit=1, layer=depth, keep=Keep.NEVER, gain=Gain.ONE,
    )
    answer.logits, state.exit_layer
"""

from __future__ import annotations

import torch
from torch import Tensor

from eefast.ops.arguments import check_exit, check_layer, check_rows, expect, rows_of
from eefast.ops.implementations import Impl, implementation
from eefast.ops.kinds import Gain, Keep
from eefast.ops.state import SimilarityState
from eefast.ops.step import Step


def similarity_step(
    hidden: Tensor,  # (R, D), (R, T, D) or, with offsets, (M, D); float32, float16 or bfloat16
    table: Tensor,  # (L, 3) float32
    state: SimilarityState,  # of N samples; written in place
    *,
    exit: int,
    layer: int,
    strict: bool = False,
    rows: Tensor | None = None,  # (R,) int64
    offsets: Tensor | None = None,  # (R,) int64
    impl: Impl = "auto",
) -> None:
    """Run one exit for R rows and update `state` in place.

    For every row whose sample is still running: S = weight * cos(hidden, previous) in float32, as
    `torch.nn.functional.cosine_similarity` has it (norms of at least 1e-8), and then previous =
    hidden. A sample exits where S reaches the threshold, and at the last exit
    (`exit == len(table)`); it gets `exit_layer = layer`, and is never touched again. A NaN never
    exits early. `state.running[exit - 1]` becomes true if any row handed in is still running.

    Args:
        hidden: the vectors after the layer; or the hidden states of all tokens [R, T, D], of which
            it reads each row's first; or flattened tokens [M, D], of which it reads `offsets`.
            Rows may be strided; no copy is made.
        table: weight, threshold and tau (not used) of every exit (`Policy.table`).
        state: `SimilarityState.start(...)` before layer 1.
        exit: 1-based number of the exit, the row of `table`.
        layer: 1-based layer after which the exit stands, written to `state.exit_layer`.
        strict: exit at S > threshold, as MuE does, rather than at S >= threshold.
        rows: row r belongs to sample `rows[r]`, each at most once; None: to sample r.
        offsets: row r of the call is `hidden[offsets[r]]`.
        impl: "auto", or the implementation to use; there is no "cuda".

    Raises:
        ValueError, TypeError: an argument does not fit; `state` is unchanged.
        RuntimeError: the implementation is not built here.
    """
    op = implementation(impl, hidden.device, hidden.dtype, op="similarity_step")
    check_layer(layer)
    r, on = rows_of(hidden, offsets), hidden.device
    n, d, exits = len(state.score), hidden.shape[-1], len(table)
    check_exit(exit, table, on)
    expect("state.previous", state.previous, [n, d], torch.float32, on)
    expect("state.score", state.score, [n], torch.float32, on)
    expect("state.exit_layer", state.exit_layer, [n], torch.int32, on)
    expect("state.running", state.running, [exits], torch.bool, on)
    check_rows(rows, r, n, on)
    step = Step(exit, layer, Keep.NEVER, Gain.ONE, strict).pack()
    op(hidden, offsets, table, rows, step, *state)
