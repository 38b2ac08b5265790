"""The ops of packed blocks: what does not fit is refused, with the argument's name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from eefast.ops import _native  # noqa: F401  (loads the ops)


def block(dtype="float32", heads=2, **other) -> Tensor:
    """4 wide, 6 within the feed-forward."""
    shapes = {"qkv": (12, 4), "output": (4, 4), "up": (6, 4), "down": (4, 6), **other}
    norms = other.pop("norms", torch.ones(4, 4))
    linears = [
        torch.ops.eefast.pack_linear(torch.ones(shapes[name]), None, dtype)
        for name in ("qkv", "output", "up", "down")
    ]
    numbers = (norms, 1e-5, 1e-5, "gelu", other.pop("gated", False), False, heads)
    return torch.ops.eefast.pack_block(
        *linears, *numbers, 4 // heads, 0.5, -1, other.pop("rotary", -1)
    )


def run(x: Any = None, blocks: Any = None, mask=None, bias=None, tables=()) -> Tensor:
    x = torch.ones(2, 3, 4) if x is None else x
    return torch.ops.eefast.packed_blocks(
        x, [block()] if blocks is None else blocks, mask, bias, list(tables), 0.0
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"qkv": (11, 4)}, "qkv must have 12 outputs and 4 inputs; got 11 and 4"),
        ({"output": (4, 5)}, "output must have 4 outputs and 4 inputs"),
        ({"up": (7, 4)}, "up must have 6 outputs"),
        ({"gated": True}, "up must have 12 outputs"),
        ({"down": (3, 6)}, "down must have 4 outputs"),
        ({"norms": torch.ones(3, 4)}, r"norms must be float32 \[4, 4\]"),
        ({"heads": 4, "rotary": 0}, "head_width must be even"),
        ({"heads": 0}, "heads must be in"),
    ],
)
def test_parts_that_do_not_fit_are_refused(options, words):
    if options.get("heads") == 0:
        with pytest.raises(RuntimeError, match=words):
            torch.ops.eefast.pack_block(
                *(torch.ops.eefast.pack_linear(torch.ones(4, 4), None, "int8") for _ in range(4)),
                *(torch.ones(4, 4), 1e-5, 1e-5, "gelu", False, False, 0, 4, 0.5, -1, -1),
            )
        return
    with pytest.raises(RuntimeError, match=words):
        block(**options)


def altered(buffer: Tensor, at: int, value: int) -> Tensor:
    """With another 64-bit number in the header: 1 is bytes, 2 width, 3 heads, 6 rotary."""
    changed = buffer.clone()
    changed[:128].view(torch.int64)[at] = value
    return changed


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        ([], "blocks must be at least one"),
        ([torch.zeros(500, dtype=torch.uint8)], "blocks must be what pack_block returned"),
        ([torch.zeros(500)], "blocks must be what pack_block returned, uint8"),
        ([block()[:100]], "blocks must be what pack_block returned"),
        ([block()[:-1]], "damaged"),
        ([altered(block(), 1, 5)], "damaged"),
        ([altered(block(), 2, 1 << 61)], "damaged"),
        ([altered(block(), 2, 0)], "damaged"),
        ([altered(block(), 3, 4)], "qkv must have 24 outputs"),
        ([block(), block("int8")], "one dtype and the same shapes"),
        ([altered(block(), 6, 0)], "tables: a block reads pair 0 of them; got 0"),
    ],
)
def test_what_pack_block_did_not_make_is_refused(blocks, words):
    with pytest.raises(RuntimeError, match=words):
        run(blocks=blocks)


@pytest.mark.parametrize(
    ("operands", "words"),
    [
        ({"x": torch.ones(2, 4)}, "x must be"),
        ({"x": torch.ones(2, 3, 5)}, r"x must be float32 \[2, 3, 4\]"),
        ({"x": torch.ones(2, 3, 4).double()}, "x must be float32"),
        ({"x": torch.ones(2, 4, 3).mT}, "x must be .* contiguous"),
        ({"mask": torch.ones(3, 3)}, r"mask must be float32 \[2, 3\]"),
        ({"mask": torch.ones(2, 2)}, r"mask must be float32 \[2, 3\]"),
        ({"bias": torch.ones(1, 3, 3)}, r"bias must be float32 \[2, 3, 3\]"),
        (
            {"blocks": [block(rotary=0)], "tables": [torch.ones(1, 3, 2), torch.ones(1, 2, 2)]},
            r"tables must be float32 \[1, 3, 2\]",
        ),
    ],
)
def test_operands_that_do_not_fit_are_refused(operands, words):
    with pytest.raises(RuntimeError, match=words):
        run(**operands)


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4)])
def test_nothing_gives_nothing(shape):
    assert run(torch.ones(shape)).shape == shape
