"""What the ops work on: the weights of a head, and the running state of a call."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor

from eefast.ops.kinds import NO_PREDICTION


class HeadWeights(NamedTuple):
    """The weights of one exit head, as the exit step takes them.

    linear: logits = weight @ h + bias. pooler: h is replaced by
    tanh(pooler_weight @ h + pooler_bias) first. With a ROW scorer, weight and bias have one row
    more than there are classes: the last is the scorer's.

    With a cascade (ZTW) the logits gain cascade @ z, where z is what the head of the exit before
    gave: `ExitState.logits` holds it, 0 before the first exit. This head then leaves its own there.
    So the first head of a cascade has one too, of any finite numbers.
    """

    pooler_weight: Tensor | None  # (D, D) or None
    pooler_bias: Tensor | None  # (D,) or None
    weight: Tensor  # (C, D); (C + 1, D) with a ROW scorer
    bias: Tensor | None  # (C,) or None; (C + 1,) with a ROW scorer
    cascade: Tensor | None = None  # (C, C) float32, whatever the dtype of the others; or None


class ExitState(NamedTuple):
    """The running state of the N samples of one call, in the caller's order."""

    score: Tensor  # (N,) float32: S_i
    # (N,) int32: at the last exit met; -1 before the first. Of a sample that exited, argmax of its
    # logits.
    prediction: Tensor
    exit_layer: Tensor  # (N,) int32: layer after which the sample exited; 0 while running
    # (N, C) float32: of the exit at which the sample exited. While it runs, with one class or a
    # cascade what the head of the exit before gave (0 before the first), otherwise anything.
    logits: Tensor
    running: Tensor  # (L,) bool: whether any sample was still running after exit i
    # (N, C) float32, where the policy gathers something or has a network: `Values.votes`.
    votes: Tensor | None = None
    # (N, M) float32, M >= L, where the policy has a scorer that wants it: the scores q_i.
    memory: Tensor | None = None
    # (L, 2) int64, GPUs only. How many blocks of exit i's launch are done (0 between launches), and
    # the cudaGraphConditionalHandle that exit i sets to `running`, or 0 for none.
    control: Tensor | None = None

    @classmethod
    def start(
        cls,
        samples: int,
        classes: int,
        exits: int,
        device: torch.device | str = "cpu",
        votes: bool = False,
        memory: bool = False,
    ) -> ExitState:
        """The state before the first exit; `votes` and `memory` where the policy uses them."""
        packed = PackedState(samples, classes, exits, device, votes, memory)
        packed.start()
        return packed.state


class SimilarityState(NamedTuple):
    """The running state of the N samples of one call that exits by similarity."""

    previous: Tensor  # (N, D) float32: before the next layer; once exited, that it exited with
    score: Tensor  # (N,) float32: S_i
    exit_layer: Tensor  # (N,) int32: layer after which the sample exited; 0 while running
    running: Tensor  # (L,) bool: whether any sample was still running after exit i

    @classmethod
    def start(cls, vectors: Tensor, exits: int) -> SimilarityState:
        """The state before the first of `exits` exits, from the vectors before layer 1, [N, D]."""
        n, on = len(vectors), vectors.device
        return cls(
            vectors.to(torch.float32, copy=True, memory_format=torch.contiguous_format),
            torch.zeros(n, dtype=torch.float32, device=on),
            torch.zeros(n, dtype=torch.int32, device=on),
            torch.zeros(exits, dtype=torch.bool, device=on),
        )


class PackedState:
    """An `ExitState` in one block of memory: a GPU starts it with two launches, copies it with one.

    Args:
        samples, classes, exits, device, votes, memory: as for `ExitState.start`; nothing is
            initialised yet.
    """

    def __init__(
        self,
        samples: int,
        classes: int,
        exits: int,
        device: torch.device | str,
        votes: bool = False,
        memory: bool = False,
    ) -> None:
        self._shape = samples, classes, exits
        self._votes, self._memory = votes, memory
        words = [
            samples * classes, samples, samples, samples, -(-exits // 4),
            samples * classes * votes, samples * exits * memory,
        ]  # fmt: skip
        # Each part is aligned to 16 bytes: Triton compiles another kernel for those that are not.
        *self._offsets, total = itertools.accumulate((-(-n // 4) * 4 for n in words), initial=0)
        self._words = torch.empty(total, dtype=torch.int32, device=device)
        control = None
        if torch.device(device).type != "cpu":
            # Not in the block: its counters are 0 between calls, and its handles stay.
            control = torch.zeros(exits, 2, dtype=torch.int64, device=device)
        self.state = self._of(self._words, control)

    def start(self) -> None:
        """Make it the state before the first exit."""
        self._words.zero_()
        self.state.prediction.fill_(NO_PREDICTION)

    def copy(self) -> ExitState:
        """A copy, without `control`."""
        return self._of(self._words.clone(), None)

    def _of(self, words: Tensor, control: Tensor | None) -> ExitState:
        (n, c, exits), floats, one = self._shape, words.view(torch.float32), (1,)
        logits, score, prediction, exit_layer, running, votes, memory = self._offsets
        return ExitState(
            floats.as_strided((n,), one, score),
            words.as_strided((n,), one, prediction),
            words.as_strided((n,), one, exit_layer),
            floats.as_strided((n, c), (c, 1), logits),
            words.view(torch.bool).as_strided((exits,), one, 4 * running),
            floats.as_strided((n, c), (c, 1), votes) if self._votes else None,
            floats.as_strided((n, exits), (exits, 1), memory) if self._memory else None,
            control,
        )
