"""DeBERTa-v2: the first layer's convolution, and what is shared by all samples."""

from __future__ import annotations

import pytest
import torch

from eefast.backbones import backbone_for

from .families import build, drive, our_states, started, their_states, tokens


@pytest.mark.parametrize("padding", [None, "right", "left"])
@torch.no_grad()
def test_the_convolution_belongs_to_layer_1(padding: str | None) -> None:
    model = build("deberta-v2", conv_kernel_size=3, conv_act="gelu")
    batch, rows = tokens(5, padding=padding), torch.tensor([4, 1])
    backbone = backbone_for(model)
    ours, theirs = our_states(backbone, **batch), their_states("deberta-v2", model, **batch)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    hidden, context = started(backbone, **batch)
    chosen = drive(backbone, hidden[rows], context.select(rows))
    alone = our_states(backbone, **{name: value[rows] for name, value in batch.items()})
    assert all(torch.equal(a, b) for a, b in zip(chosen, alone, strict=True))
    assert [len(s) for s in our_states(backbone, input_ids=batch["input_ids"][:0])] == [0] * 4


@torch.no_grad()
def test_without_relative_positions() -> None:
    model = build("deberta-v2", relative_attention=False)
    ours = our_states(backbone_for(model), **tokens())
    theirs = their_states("deberta-v2", model, **tokens())
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_what_all_samples_share_is_made_once() -> None:
    _, context = started(backbone_for(build("deberta-v2")), **tokens(padding="left"))
    chosen = context.select(torch.tensor([2, 0]))
    assert chosen.positions is context.positions
    assert chosen.embeddings is context.embeddings
    assert torch.equal(chosen.mask, context.mask[[2, 0]])
    assert context.positions.shape == (1, 10, 10)


@pytest.mark.parametrize("buckets", [-1, 2, 8, 32, 256])
@pytest.mark.parametrize("length", [1, 2, 40, 512])
def test_buckets_are_transformers_own(buckets: int, length: int) -> None:
    backbone = backbone_for(
        build("deberta-v2", position_buckets=buckets, max_position_embeddings=512)
    )
    hidden, context = started(backbone, input_ids=torch.full((1, length), 5))
    assert torch.equal(context.positions, backbone.model.encoder.get_rel_pos(hidden))
