"""The calls of the exit step that are compiled ahead of time, and the bytes that each must move."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from eefast.ops import ExitState, Gain, Keep, Step

EXITS, TOKENS = 12, 32

# Published bandwidths, bytes per second: NVIDIA A100 80GB SXM and H100 SXM data sheets.
BANDWIDTHS = {"A100": 2039e9, "H100": 3350e9}


class Variant(NamedTuple):
    """One call of the op."""

    head: str  # "linear" or "pooler"
    dtype: torch.dtype
    width: int  # D
    classes: int  # C
    batch: int  # B, all of them running
    logits: bool = True
    regrouped: bool = False  # with rows and positions

    @property
    def name(self) -> str:
        """Unique among the variants."""
        more = ("" if self.logits else ", top-1") + (", regrouped" if self.regrouped else "")
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.head} {dtype} D={self.width} C={self.classes} B={self.batch}{more}"

    def arguments(self) -> tuple[Any, ...]:
        """Tensors that are never read, as the op takes them."""

        def empty(*shape: int) -> torch.Tensor:
            return torch.empty(shape, dtype=self.dtype)

        b, d, c = self.batch, self.width, self.classes
        pooled = self.head == "pooler"
        index = torch.empty(b, dtype=torch.int64) if self.regrouped else None
        state = ExitState.start(b, c if self.logits else None, EXITS)
        return (
            empty(b, TOKENS, d), index, empty(d, d) if pooled else None,
            empty(d) if pooled else None, empty(c, d), empty(c), torch.empty(EXITS, 3), index,
            Step(1, 1, Keep.AGREE, Gain.CONFIDENCE).pack(), *state,
        )  # fmt: skip

    @property
    def bytes_moved(self) -> int:
        """What has to come from memory and go back to it once: weights, hidden rows, state, table,
        and the logits of all samples. Scratch is left out: it stays in the cache."""
        size = self.dtype.itemsize
        rows = (self.width + 1) * (self.classes + (self.width if self.head == "pooler" else 0))
        state = self.batch * (12 + 12) + 12 + 1
        logits = 4 * self.batch * self.classes if self.logits else 0
        return size * (rows + self.batch * self.width) + state + logits

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
        Variant("pooler", f16, 768, 2, 64, regrouped=True),
        Variant("linear", f16, 4096, 128256, 8, logits=False),
        Variant("linear", f16, 8192, 262144, 1, logits=False, regrouped=True),
        Variant("linear", f16, 767, 3, 7),  # nothing divides
        Variant("linear", f16, 767, 1001, 7),
        Variant("linear", torch.float32, 767, 1001, 7),
        Variant("pooler", f16, 1000, 30522, 2),
        Variant("pooler", torch.float16, 1000, 30522, 64, regrouped=True),
        Variant("pooler", torch.float32, 1000, 30522, 64, regrouped=True),
    ]
    return heads + others
