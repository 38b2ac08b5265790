"""Lengths up to 512 and batches up to 64: a layer on every instruction set, against fp64."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from eefast.backbones import Backbone
from eefast.lowering import PRECISIONS

from ..backbones.families import build
from .test_packed import assert_in_budget, packed
from .test_program import executor, pair, tokens

# No width is a multiple of a vector; relative positions, rotation, windows and gates among them.
ODD: dict[str, dict[str, Any]] = {
    "bert": {"hidden_size": 36, "intermediate_size": 51},
    "mpnet": {"hidden_size": 52, "intermediate_size": 67, "hidden_act": "relu"},
    "modernbert": {
        "hidden_size": 40,
        "intermediate_size": 49,
        "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
    },
}
LAYER = 2
CALLS = [  # batch, length and mask; around the vectors, the tiles and the rows that go together
    *((1, 512, "left"), (1, 511, "right"), (1, 128, "none"), (2, 127, "one token")),
    *((3, 65, "one sample hidden"), (5, 64, "left"), (8, 63, "right"), (1, 17, "all hidden")),
    *((16, 16, "right"), (33, 15, "one token"), (63, 2, "left"), (64, 1, "none")),
    *((64, 1, "all hidden"), (64, 15, "left")),
]


@cache
def models(name: str) -> tuple[Backbone, Backbone]:
    return pair(build(name, max_position_embeddings=514, **ODD[name]))


@cache
@torch.no_grad()
def wanted(name: str, precision: Any, call: tuple[int, int, str]) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, and what the reference and what fp64 make of them."""
    (own, exact), inputs = models(name), tokens(*call)
    hidden, context = own.start(inputs)
    by_reference = executor(own, precision).layer(LAYER, hidden, context)
    true = executor(exact, "float64").layer(LAYER, hidden.double(), exact.start(inputs)[1])
    return hidden, by_reference, true


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("precision", PRECISIONS)
@torch.no_grad()
def test_lengths_batches_and_masks(instruction_set, precision, name):
    layers = packed(models(name)[0], precision)
    for call in CALLS:
        hidden, by_reference, true = wanted(name, precision, call)
        got = layers.layer(LAYER, hidden, layers.start(tokens(*call))[1])
        assert_in_budget(got, by_reference, true, precision, call)
