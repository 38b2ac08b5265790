"""What a backbone tells of itself, and what it refuses at the door."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch

from eefast.backbones import backbone_for, gathered
from eefast.backbones.families import BertBackbone

from .families import FAMILIES, LAYERS, LONGEST, PAD, adapter, build, started, tokens

NAMES = list(FAMILIES)


@pytest.mark.parametrize("name", NAMES)
def test_attributes(name: str) -> None:
    backbone = adapter(name)
    assert backbone.depth == FAMILIES[name].config.get("num_hidden_layers", LAYERS)
    assert backbone.widths == (32,) * backbone.depth
    assert backbone.costs == (1.0,) * backbone.depth
    assert backbone.padding == {**dict.fromkeys(backbone.takes, 0), "input_ids": PAD}
    assert (backbone.device.type, backbone.dtype) == ("cpu", torch.float32)
    assert backbone.max_length == LONGEST


def test_max_length_where_positions_start_after_the_padding_index() -> None:
    # RoBERTa's positions start after its padding token, MPNet's always at 2.
    kwargs = {"pad_token_id": 3, "max_position_embeddings": 20}
    assert backbone_for(build("roberta", **kwargs)).max_length == 16
    assert backbone_for(build("mpnet", **kwargs)).max_length == 18
    assert backbone_for(build("bert", **kwargs)).max_length == 20


@pytest.mark.parametrize("name", [name for name in NAMES if not FAMILIES[name].last])
def test_readout_is_a_view_of_the_first_token(name: str) -> None:
    hidden = torch.randn(3, 10, 32)
    vectors = gathered(*adapter(name).readout(1, hidden, None))
    assert torch.equal(vectors, hidden[:, 0])
    assert vectors.untyped_storage().data_ptr() == hidden.untyped_storage().data_ptr()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("index", [0, -1, 100])
def test_layers_that_are_not_there(name: str, index: int) -> None:
    backbone = adapter(name)
    hidden, inputs = started(backbone, **tokens())
    with pytest.raises(IndexError, match=f"got layer {index}; wanted 1 to {backbone.depth}"):
        backbone.layer(index, hidden, inputs)


@pytest.mark.parametrize("name", NAMES)
class TestRefusals:
    def refuses(self, name: str, message: str, **inputs: Any) -> None:
        with pytest.raises(ValueError, match=message):
            started(adapter(name), **inputs)

    def test_two_kinds_of_tokens(self, name: str) -> None:
        self.refuses(name, "input_ids, inputs_embeds: got neither", attention_mask=torch.ones(3, 9))
        embeds = torch.ones(3, 10, 32)
        self.refuses(name, "input_ids, inputs_embeds: got both", **tokens(), inputs_embeds=embeds)

    def test_tokens_of_another_shape(self, name: str) -> None:
        ids = tokens()["input_ids"]
        self.refuses(name, r"input_ids: got shape \[10\]; wanted \[B, T\]", input_ids=ids[0])
        self.refuses(
            name,
            r"inputs_embeds: got shape \[3, 10\]; wanted \[B, T, E\]",
            inputs_embeds=ids.float(),
        )

    @pytest.mark.parametrize("length", [0, LONGEST + 1])
    def test_length(self, name: str, length: int) -> None:
        message = f"got {length} tokens per sequence; wanted 1 to {LONGEST}"
        self.refuses(name, f"input_ids: {message}", input_ids=torch.full((2, length), PAD))
        embeds = torch.zeros(2, length, 32)
        self.refuses(name, f"inputs_embeds: {message}", inputs_embeds=embeds)

    @pytest.mark.parametrize("shape", [(3, 9), (2, 10), (1, 10), (3, 1, 1, 10), (10,)])
    def test_mask_of_another_shape(self, name: str, shape: tuple[int, ...]) -> None:
        got = str(list(shape)).replace("[", r"\[").replace("]", r"\]")
        message = rf"attention_mask: got shape {got}; wanted \[3, 10\]"
        self.refuses(name, message, **tokens(), attention_mask=torch.ones(shape))

    def test_token_types_that_the_family_has_not(self, name: str) -> None:
        types = torch.zeros(3, 10, dtype=torch.int64)
        if FAMILIES[name].token_types:
            started(adapter(name), **tokens(), token_type_ids=types)
        else:
            self.refuses(
                name, "token_type_ids: a .* model takes none", **tokens(), token_type_ids=types
            )


def test_positions_that_a_family_has_not() -> None:
    class WithoutPositions(BertBackbone):
        takes: ClassVar = {"input_ids": "BT", "token_type_ids": "1T"}

    backbone = WithoutPositions(build("bert"))
    started(backbone, **tokens(), token_type_ids=torch.zeros(3, 10, dtype=torch.int64))
    with pytest.raises(ValueError, match="position_ids: a bert model takes none"):
        started(backbone, **tokens(), position_ids=torch.arange(10)[None])


@pytest.mark.parametrize("name", ["bert", "roberta", "electra"])
def test_decoders(name: str) -> None:
    with pytest.raises(ValueError, match=r"got a decoder \(config.is_decoder=True\)"):
        backbone_for(build(name, is_decoder=True))
    model = build(name)
    model.config.is_causal = True  # transformers would mask what comes after each token
    with pytest.raises(ValueError, match=r"got a decoder \(config.is_causal=True\)"):
        backbone_for(model)
