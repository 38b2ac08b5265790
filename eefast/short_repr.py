"""`ShortRepr`: outputs that print the shapes of their tensors, not pages of numbers."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.utils.generic import ModelOutput


class ShortRepr(ModelOutput):
    """A `ModelOutput` whose `repr` is one line: `logits=[4, 3] float32`, `loss=0.69`."""

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={_short(value)}" for name, value in self.items())
        return f"{type(self).__name__}({shown})"


def _short(value: Any) -> str:
    if isinstance(value, tuple) and value:
        return f"{len(value)} x {_short(value[0])}"
    if not isinstance(value, Tensor):
        return repr(value)
    if value.dim() == 0 and not value.is_meta:
        return f"{value.item():.4g}"
    return f"{list(value.shape)} {str(value.dtype).removeprefix('torch.')}"
