"""Layer by layer, every family gives transformers' own hidden states, bit for bit.

The same kernels run on the same shapes: on the CPU nothing may differ. (With sdpa transformers
passes a boolean mask, which torch turns into the additive one that the adapter passes.)
"""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from .families import (
    FAMILIES,
    GRID,
    LONGEST,
    PAIRS,
    TOKEN_TYPES,
    VOCABULARY,
    adapter,
    grid_id,
    model_of,
    our_states,
    their_states,
    tokens,
)


def assert_same(name: str, attention: str, dtype: torch.dtype, **inputs: Tensor) -> None:
    with torch.no_grad():
        theirs = their_states(name, model_of(name, attention, dtype), **inputs)
        ours = our_states(adapter(name, attention, dtype), **inputs)
    assert len(ours) == len(theirs)
    for index, (got, wanted) in enumerate(zip(ours, theirs, strict=True)):
        assert got.dtype == dtype
        assert torch.equal(got, wanted), f"after layer {index}"
    # A layer that changes nothing would agree with its neighbour's number.
    assert all(not torch.equal(a, b) for a, b in itertools.pairwise(ours))


@pytest.mark.parametrize(("name", "attention", "dtype"), GRID, ids=grid_id)
class TestEveryDtype:
    @pytest.mark.parametrize("batch", [1, 3])
    def test_no_mask(self, name: str, attention: str, dtype: torch.dtype, batch: int) -> None:
        assert_same(name, attention, dtype, **tokens(batch))

    @pytest.mark.parametrize("padding", ["right", "left"])
    def test_padding(self, name: str, attention: str, dtype: torch.dtype, padding: str) -> None:
        assert_same(name, attention, dtype, **tokens(padding=padding))

    def test_mask_that_hides_nothing(self, name: str, attention: str, dtype: torch.dtype) -> None:
        inputs = tokens()
        assert_same(name, attention, dtype, **inputs, attention_mask=torch.ones(3, 10))

    def test_sample_of_padding_only(self, name: str, attention: str, dtype: torch.dtype) -> None:
        inputs = tokens(padding="right")
        inputs["attention_mask"][1] = 0
        assert_same(name, attention, dtype, **inputs)


@pytest.mark.parametrize(("name", "attention"), PAIRS, ids=grid_id)
class TestEveryInput:
    @pytest.mark.parametrize("rows", [1, 3])
    def test_position_ids(self, name: str, attention: str, rows: int) -> None:
        generator = torch.Generator().manual_seed(1)
        positions = torch.randint(2, LONGEST, (rows, 10), generator=generator)
        inputs = tokens(padding="right")
        assert_same(name, attention, torch.float32, **inputs, position_ids=positions)

    @pytest.mark.parametrize("padding", [None, "left"])
    def test_inputs_embeds(self, name: str, attention: str, padding: str | None) -> None:
        inputs = tokens(padding=padding)
        table = model_of(name, attention, torch.float32).get_input_embeddings()
        assert table.num_embeddings == VOCABULARY
        inputs["inputs_embeds"] = table(inputs.pop("input_ids")).detach()
        assert_same(name, attention, torch.float32, **inputs)

    def test_longest_sequence(self, name: str, attention: str) -> None:
        assert_same(name, attention, torch.float32, **tokens(2, LONGEST))

    def test_mask_of_another_dtype(self, name: str, attention: str) -> None:
        inputs = tokens(padding="right")
        inputs["attention_mask"] = inputs["attention_mask"] == 1
        assert_same(name, attention, torch.float32, **inputs)


@pytest.mark.parametrize("name", [name for name in FAMILIES if FAMILIES[name].token_types])
def test_token_types(name: str) -> None:
    types = torch.arange(30).reshape(3, 10) % TOKEN_TYPES
    inputs = tokens(padding="right")
    assert_same(name, "eager", torch.float32, **inputs, token_type_ids=types)


@pytest.mark.parametrize(("name", "attention"), PAIRS, ids=grid_id)
def test_half_precision(name: str, attention: str) -> None:
    assert_same(name, attention, torch.float16, **tokens(padding="right"))


@pytest.mark.parametrize(("name", "attention"), PAIRS, ids=grid_id)
def test_autocast(name: str, attention: str) -> None:
    inputs = tokens(padding="right")
    model = model_of(name, attention, torch.float32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        theirs = their_states(name, model, **inputs)
        ours = our_states(adapter(name, attention), **inputs)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    with torch.no_grad():
        assert not torch.equal(ours[-1], our_states(adapter(name, attention), **inputs)[-1])
