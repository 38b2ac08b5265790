"""The calls of the exit step that are compiled ahead of time, and the bytes that each must move."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from eefast.ops import Accumulate, ExitState, Gain, Keep, Recurrence, ScorerKind, Step

EXITS, TOKENS = 12, 32
UNITS = 16  # of a network scorer

# Published bandwidths, bytes per second: NVIDIA A100 80GB SXM and H100 SXM data sheets.
BANDWIDTHS = {"A100": 2039e9, "H100": 3350e9}


class Variant(NamedTuple):
    """One call of the op."""

    head: str  # "linear" or "pooler"
    dtype: torch.dtype
    width: int  # D
    classes: int  # C
    batch: int  # B, all of them running
    evicted: bool = False  # with rows and offsets
    accumulate: Accumulate = Accumulate.NONE
    scorer: ScorerKind = ScorerKind.NONE
    cascade: bool = False

    @property
    def name(self) -> str:
        """Unique among the variants."""
        more = ", evicted" if self.evicted else ""
        if self.accumulate:
            more += f", {self.accumulate.name.lower().replace('_', '-')}"
        if self.scorer:
            more += f", {self.scorer.name.lower()} scorer"
        if self.cascade:
            more += ", cascade"
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.head} {dtype} D={self.width} C={self.classes} B={self.batch}{more}"

    @property
    def _outputs(self) -> int:
        return self.classes + (self.scorer is ScorerKind.ROW)

    @property
    def _scorer_shape(self) -> tuple[int, int]:
        """Of the first exit's: every exit's has one column more than that before."""
        return (UNITS, self.classes + 5) if self.scorer is ScorerKind.NETWORK else (0, 0)

    @property
    def _recurrence(self) -> Recurrence:
        return Recurrence(Keep.AGREE, Gain.CONFIDENCE, False, self.accumulate, self.scorer)

    @property
    def _votes(self) -> bool:
        return self._recurrence.uses_votes

    def arguments(self) -> tuple[Any, ...]:
        """Tensors that are never read, as the op takes them."""

        def empty(*shape: int) -> torch.Tensor:
            return torch.empty(shape, dtype=self.dtype)

        b, d, c = self.batch, self.width, self._outputs
        pooled, scores = self.head == "pooler", self.scorer is ScorerKind.NETWORK
        index = torch.empty(b, dtype=torch.int64) if self.evicted else None
        step = Step(1, 1, *self._recurrence)
        state = ExitState.start(b, self.classes, EXITS, votes=self._votes, memory=bool(self.scorer))
        return (
            empty(b * TOKENS, d) if self.evicted else empty(b, TOKENS, d), index,
            empty(d, d) if pooled else None, empty(d) if pooled else None, empty(c, d), empty(c),
            torch.empty(self.classes, self.classes) if self.cascade else None,
            torch.empty(self._scorer_shape) if scores else None, torch.empty(EXITS, 3), index,
            step.pack(), *state,
        )  # fmt: skip

    @property
    def bytes_moved(self) -> int:
        """What has to come from memory and go back to it once: weights, hidden rows, state, table,
        votes, scores and the logits of all samples. Scratch is left out: it stays in the cache."""
        size = self.dtype.itemsize
        rows = (self.width + 1) * (self._outputs + (self.width if self.head == "pooler" else 0))
        state = self.batch * (12 + 12) + 12 + 1
        floats = self.batch * self.classes * (3 if self._votes else 1)
        floats += self.batch * bool(self.scorer) + self._scorer_shape[0] * self._scorer_shape[1]
        floats += self.cascade * self.classes * (self.classes + self.batch)
        return size * (rows + self.batch * self.width) + state + 4 * floats

    def roofline_us(self, device: str) -> float:
        """Time that the bytes alone take at the published bandwidth. Computed, never measured: no
        launch, no latency, weights that come from memory at every exit."""
        return self.bytes_moved / BANDWIDTHS[device] * 1e6


def variants() -> list[Variant]:
    """Both heads, few and many classes, all precisions; and what else changes the code."""
    f16 = torch.bfloat16
    heads = [
        Variant(head, dtype, 768, classes, 1)
        for dtype in (torch.float32, torch.float16, torch.bfloat16)
        for head in ("linear", "pooler")
        for classes in (2, 128, 50257)
    ]
    others = [
        Variant("pooler", f16, 768, 2, 32),
        Variant("pooler", f16, 768, 2, 64, evicted=True),
        Variant("linear", f16, 4096, 128256, 8),
        Variant("linear", f16, 8192, 262144, 1, evicted=True),
        Variant("linear", f16, 767, 3, 7),  # nothing divides
        Variant("linear", f16, 767, 1001, 7),
        Variant("linear", torch.float32, 767, 1001, 7),
        Variant("pooler", f16, 1000, 30522, 2),
        Variant("pooler", torch.float16, 1000, 30522, 64, evicted=True),
        Variant("pooler", torch.float32, 1000, 30522, 64, evicted=True),
    ]
    votes, row, network = Accumulate.VOTES, ScorerKind.ROW, ScorerKind.NETWORK
    parts = [
        Variant("linear", f16, 768, 128, 1, accumulate=votes),
        Variant("linear", f16, 768, 50257, 1, accumulate=votes),
        *(
            Variant("linear", f16, 768, 128, 1, accumulate=gathered)
            for gathered in Accumulate
            if gathered > votes
        ),
        Variant("linear", f16, 768, 127, 1, scorer=row),
        Variant("linear", f16, 768, 50257, 1, scorer=row),
        Variant("linear", f16, 768, 128, 1, scorer=network),
        Variant("linear", f16, 768, 128, 1, accumulate=votes, scorer=network),
        Variant("linear", f16, 768, 128, 1, cascade=True),
    ]
    return heads + others + parts
