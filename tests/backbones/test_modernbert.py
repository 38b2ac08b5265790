"""ModernBERT: windows of every length, rotary positions per sample, and what exits read."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from eefast.backbones import GenericBackbone, backbone_for, gathered, study

from .families import LONGEST, adapter, build, model_of, our_states, started, their_states, tokens

NAMES = ["modernbert", "modernbert-mean"]
WINDOW = 8


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("padding", [None, "left"])
@pytest.mark.parametrize("length", [1, WINDOW - 1, WINDOW, WINDOW + 1, WINDOW + 2, LONGEST])
def test_windows(attention: str, padding: str | None, length: int) -> None:
    inputs = tokens(1, length, None)
    if padding and length > 1:
        inputs["attention_mask"] = torch.ones(1, length)
        inputs["attention_mask"][:, : length // 2] = 0  # some windows hold nothing else
    model = model_of("modernbert", attention, torch.float32)
    with torch.no_grad():
        ours = our_states(backbone_for(model), **inputs)
        theirs = their_states("modernbert", model, **inputs)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_the_window_matters_and_is_shared_where_nothing_is_padded() -> None:
    backbone = adapter("modernbert")
    hidden, context = started(backbone, **tokens(3))
    assert context.mask is None
    assert context.sliding.shape == (1, 1, 10, 10)
    assert context.select(torch.tensor([2])).sliding is context.sliding
    for index, same in ((1, True), (2, False)):
        everything = type(context)(tables=context.tables)
        a, b = (backbone.layer(index, hidden, given) for given in (context, everything))
        assert torch.equal(a, b) is same
    assert started(backbone, **tokens(3, WINDOW - 1))[1].sliding is None


def test_positions_of_samples_are_selected() -> None:
    positions = torch.arange(30).reshape(3, 10) % LONGEST
    rows = torch.tensor([2, 0])
    batch = {**tokens(3, padding="right"), "position_ids": positions}
    backbone = adapter("modernbert")
    with torch.no_grad():
        _, context = started(backbone, **batch)
        _, alone = started(backbone, **{name: value[rows] for name, value in batch.items()})
    chosen = context.select(rows)
    assert chosen.tables.keys() == alone.tables.keys() == {"full_attention", "sliding_attention"}
    for kind, tables in chosen.tables.items():
        assert all(torch.equal(a, b) for a, b in zip(tables, alone.tables[kind], strict=True))
    assert torch.equal(chosen.mask, alone.mask)
    assert torch.equal(chosen.sliding, alone.sliding)


def vectors(backbone: GenericBackbone, inputs: dict[str, Tensor]) -> list[Tensor]:
    hidden, context = started(backbone, **inputs)
    found = []
    for index in range(1, backbone.depth + 1):
        hidden = backbone.layer(index, hidden, context)
        found.append(gathered(*backbone.readout(index, hidden, context)))
    return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("padding", [None, "right", "left"])
def test_exits_read_what_the_generic_backbone_reads(name: str, padding: str | None) -> None:
    model = model_of(name, "sdpa", torch.float32)
    inputs = tokens(padding=padding)
    with torch.no_grad():
        ours = vectors(backbone_for(model), inputs)
        theirs = vectors(GenericBackbone(model, study(model)), inputs)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_the_last_exit_reads_what_the_task_model_reads(name: str) -> None:
    model = build(name, task="ForSequenceClassification")
    inputs, seen = tokens(padding="right"), []
    model.head.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        model(**inputs)
        ours = vectors(backbone_for(model), inputs)[-1]
    torch.testing.assert_close(ours, seen[0], rtol=0, atol=1e-6)
