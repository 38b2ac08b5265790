"""ALBERT's layers: steps of its loop, whatever weights and blocks they are made of."""

from __future__ import annotations

import pytest
import torch

from eefast.backbones import backbone_for

from .families import build, our_states, started, tokens


@pytest.mark.parametrize("layers", range(1, 9))
@pytest.mark.parametrize("groups", [1, 2, 3, 4])
@pytest.mark.parametrize("blocks", [1, 2])
def test_every_division_of_layers_into_groups(layers: int, groups: int, blocks: int) -> None:
    model = build(
        "albert", num_hidden_layers=layers, num_hidden_groups=groups, inner_group_num=blocks
    )
    backbone = backbone_for(model)
    assert backbone.depth == layers
    with torch.no_grad():
        theirs = model(**tokens(), output_hidden_states=True).hidden_states
        ours = our_states(backbone, **tokens())
    # transformers counts blocks.
    assert len(theirs) == layers * blocks + 1
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs[::blocks], strict=True))


def test_layers_of_a_group_share_their_weights() -> None:
    backbone = backbone_for(build("albert", num_hidden_layers=4, num_hidden_groups=2))
    hidden, inputs = started(backbone, **tokens())
    with torch.no_grad():
        one, two, three, four = (backbone.layer(i, hidden, inputs) for i in range(1, 5))
    assert torch.equal(one, two)
    assert torch.equal(three, four)
    assert not torch.equal(two, three)
