"""MuE: exit when a layer hardly turned the hidden vector."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eefast.ops import Gain, Keep
from eefast.policies.base import Columns, Policy
from eefast.policies.values import Values, numbers

if TYPE_CHECKING:
    from eefast.traces import ExitTrace

SETTINGS = 64


@dataclass(frozen=True)
class MuE(Policy):
    """MuE (Tang et al., CVPR 2023): S_i = cos(h_i, h_(i-1)) > theta.

    h_i is the vector that an exit after layer i would read, and h_0 that of the embedding. Where a
    layer hardly turned it, the later ones would do little more. The last head answers, on the
    vector that the sample exited with; no head is computed before. So the model has an exit after
    every layer (the paper compares a layer's output with its input) and one head for all, as
    objective "mue" trains it, and traces are recorded with keep=("similarity",).

    The paper exits from encoder and decoder, for images and texts apart; this is one such stack.
    The first author's code compares the hidden states of all tokens, of the whole batch, as one
    vector; its comparison is strict, too, and the first layer's is with the embedding.

    Args:
        threshold: theta, one number or one per exit; a cosine, so above 1 no sample exits early.
    """

    name = "mue"
    keep, gain, strict = Keep.NEVER, Gain.SIMILARITY, True

    threshold: Values

    def __post_init__(self) -> None:
        threshold = numbers(self.name, "threshold", self.threshold, -math.inf)
        object.__setattr__(self, "threshold", threshold)

    @classmethod
    def default(cls, num_exits: int) -> MuE:
        """0.95; how alike the layers of a model are differs widely, so calibrate it."""
        return cls(0.95)

    @classmethod
    def settings(cls, trace: ExitTrace) -> Sequence[MuE]:
        """Quantiles of the trace's similarities, the same threshold for all exits.

        Up to 64 of them, from the lowest similarity to the highest, with which no sample exits
        early.
        """
        if trace.similarity is None or trace.num_exits == 1:
            return [cls.default(trace.num_exits)]  # simulating it says what is missing
        met = trace.similarity[:-1].flatten().sort().values  # the last exit always answers
        places = [round(i * (len(met) - 1) / (SETTINGS - 1)) for i in range(SETTINGS)]
        return [cls(theta) for theta in met[places].unique().tolist()]

    def columns(self, num_exits: int) -> Columns:
        return Columns(thresholds=self.threshold)
