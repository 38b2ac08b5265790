"""MPNet's relative positions: transformers' numbers, made once for all layers and samples."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch

from eefast.backbones import Backbone, backbone_for

from .families import build, drive, started, tokens


@pytest.fixture
def backbone() -> Backbone:
    # Long enough for every bucket: distances above 128 share the last one.
    return backbone_for(build("mpnet", max_position_embeddings=160))


def test_bias_is_transformers_own(backbone: Backbone) -> None:
    for length in (1, 2, 9, 40, 150):
        hidden, inputs = started(backbone, **tokens(2, length))
        assert inputs.position_bias is not None
        assert inputs.position_bias.shape == (1, 4, length, length)
        assert inputs.position_bias.is_contiguous()
        theirs = backbone.model.encoder.compute_position_bias(hidden)
        assert torch.equal(inputs.position_bias.expand_as(theirs), theirs)


def test_bias_is_made_once(backbone: Backbone) -> None:
    table = backbone.model.encoder.relative_attention_bias
    with patch.object(table, "forward", wraps=table.forward) as looked_up:
        drive(backbone, *started(backbone, **tokens()))
    assert looked_up.call_count == 1


def test_bias_matters(backbone: Backbone) -> None:
    hidden, inputs = started(backbone, **tokens())
    assert inputs.position_bias is not None
    mirrored = type(inputs)(inputs.mask, inputs.position_bias.mT)
    with torch.no_grad():
        a, b = (backbone.layer(1, hidden, given) for given in (inputs, mirrored))
    assert not torch.allclose(a, b)


def test_bias_is_shared_by_selected_samples(backbone: Backbone) -> None:
    _, inputs = started(backbone, **tokens(padding="left"))
    chosen = inputs.select(torch.tensor([2, 0]))
    assert chosen.position_bias is inputs.position_bias
    assert chosen.mask is not None
    assert chosen.mask.shape == (2, 1, 1, 10)


@pytest.mark.parametrize("length", [1, 5])
def test_no_samples_have_a_bias_too(backbone: Backbone, length: int) -> None:
    _, inputs = started(backbone, input_ids=torch.ones(0, length, dtype=torch.int64))
    assert inputs.position_bias is not None
    assert inputs.position_bias.shape == (1, 4, length, length)
