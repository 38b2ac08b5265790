"""`Context.select`: a batch continues with some of its samples."""

from __future__ import annotations

import pytest
import torch

from eefast.backbones.families.encoder import EncoderContext
from eefast.backbones.families.mpnet import MPNetContext

from .families import (
    GRID,
    LAYERS,
    PAIRS,
    adapter,
    assert_as_exact,
    drive,
    exact_model_of,
    grid_id,
    model_of,
    our_states,
    started,
    their_states,
    tokens,
)

ROWS = torch.tensor([4, 1])  # not in order, and both with padding


@pytest.mark.parametrize(("name", "attention"), PAIRS, ids=grid_id)
def test_selected_before_layer_1_equals_those_samples_alone(name: str, attention: str) -> None:
    batch = tokens(5, padding="right")
    backbone = adapter(name, attention)
    with torch.no_grad():
        hidden, inputs = started(backbone, **batch)
        ours = drive(backbone, hidden[ROWS], inputs.select(ROWS))
        alone = our_states(backbone, **{key: value[ROWS] for key, value in batch.items()})
    # The layers see the same numbers in the same shapes.
    assert all(torch.equal(a, b) for a, b in zip(ours, alone, strict=True))


@pytest.mark.parametrize(("name", "attention", "dtype"), GRID, ids=grid_id)
def test_selected_between_layers(name: str, attention: str, dtype: torch.dtype) -> None:
    # A GEMM of another number of rows rounds differently: within twice transformers' own error.
    batch = tokens(5, padding="left")
    alone = {key: value[ROWS] for key, value in batch.items()}
    backbone = adapter(name, attention, dtype)
    with torch.no_grad():
        hidden, inputs = started(backbone, **batch)
        hidden = backbone.layer(1, hidden, inputs)
        ours = drive(backbone, hidden[ROWS], inputs.select(ROWS), after=1)
        theirs = their_states(name, model_of(name, attention, dtype), **alone)[1:]
        exact = their_states(name, exact_model_of(name, attention, dtype), **alone)[1:]
    assert len(ours) == len(theirs) == backbone.depth
    for got, wanted, reference in zip(ours, theirs, exact, strict=True):
        assert_as_exact(got, wanted, reference)


@pytest.mark.parametrize(("name", "attention"), PAIRS, ids=grid_id)
@pytest.mark.parametrize("padding", [None, "right"])
def test_no_samples(name: str, attention: str, padding: str | None) -> None:
    none = {key: value[:0] for key, value in tokens(3, padding=padding).items()}
    states = our_states(adapter(name, attention), **none)
    assert [state.shape for state in states] == [(0, 10, 32)] * len(states)
    assert len(states) > LAYERS


@pytest.mark.parametrize(("name", "attention"), PAIRS, ids=grid_id)
@pytest.mark.parametrize("batch", [1, 3])
def test_select_none(name: str, attention: str, batch: int) -> None:
    backbone = adapter(name, attention)
    inputs = tokens(batch, padding="right")
    inputs["attention_mask"][0, -1] = 0
    hidden, layer_inputs = started(backbone, **inputs)
    none = torch.tensor([], dtype=torch.int64)
    after = backbone.layer(1, hidden[none], layer_inputs.select(none))
    assert after.shape == (0, 10, 32)


def test_select_keeps_order_and_shared_tensors() -> None:
    mask = torch.arange(12.0).reshape(4, 1, 1, 3)
    bias = torch.ones(1, 2, 3, 3)
    chosen = MPNetContext(mask, position_bias=bias).select(torch.tensor([2, 0, 2]))
    assert chosen.mask is not None
    assert torch.equal(chosen.mask, mask[[2, 0, 2]])
    assert chosen.position_bias is bias
    assert EncoderContext().select(torch.tensor([0])) == EncoderContext()
