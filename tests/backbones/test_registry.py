"""From a model to its adapter: task models, unknown families, and a family of your own."""

from __future__ import annotations

import re
import textwrap
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

import eefast.backbones.base
from eefast.backbones import (
    Backbone,
    backbone_for,
    base_model_of,
    gathered,
    register_backbone,
    registry,
)

from .families import FAMILIES, adapter, build, our_states, started, tokens


class ToyConfig(PretrainedConfig):
    model_type = "toy"

    def __init__(self, hidden_size: int = 8, num_hidden_layers: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers


class ToyBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Linear(width, width)

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        scores = hidden @ hidden.mT
        if mask is not None:
            scores = scores + mask[:, 0]
        return hidden + self.mix(scores.softmax(-1) @ hidden)


class ToyModel(PreTrainedModel):
    config_class = ToyConfig
    base_model_prefix = "toy"

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.tokens = nn.Embedding(60, config.hidden_size)
        self.positions = nn.Embedding(64, config.hidden_size)
        self.blocks = nn.ModuleList(ToyBlock(config.hidden_size) for _ in range(2))
        self.post_init()

    def forward(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        hidden = self.tokens(input_ids) + self.positions(torch.arange(input_ids.shape[1]))
        low = torch.finfo(hidden.dtype).min
        for block in self.blocks:
            hidden = block(hidden, ((1 - mask) * low)[:, None, None].to(hidden.dtype))
        return hidden


class ToyForSequenceClassification(PreTrainedModel):
    config_class = ToyConfig
    base_model_prefix = "toy"

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.toy = ToyModel(config)
        self.classifier = nn.Linear(config.hidden_size, 2)
        self.post_init()


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, type[Backbone]]:
    """The registry, put back as it was after the test."""
    mine = dict(registry._BACKBONES)
    monkeypatch.setattr(registry, "_BACKBONES", mine)
    return mine


def documented_example() -> str:
    """The code in the docstring of eefast.backbones.base."""
    docstring = eefast.backbones.base.__doc__ or ""
    code = re.search(r"^    from dataclasses.*\Z", docstring, re.DOTALL | re.MULTILINE)
    assert code is not None
    return textwrap.dedent(code.group())


@pytest.mark.parametrize("cls", [ToyModel, ToyForSequenceClassification])
def test_a_family_of_your_own(cls: Any, own_registry: dict[str, type[Backbone]]) -> None:
    exec(documented_example(), {})
    torch.manual_seed(0)
    model = cls(ToyConfig()).eval()
    backbone = backbone_for(model)
    assert type(backbone) is own_registry["toy"]
    assert (backbone.depth, backbone.widths, backbone.max_length) == (2, (8, 8), None)

    batch = tokens(padding="right")
    theirs = base_model_of(model)(batch["input_ids"], batch["attention_mask"])
    torch.testing.assert_close(our_states(backbone, **batch)[-1], theirs)
    assert gathered(*backbone.readout(2, theirs, None)).shape == (3, 8)
    with pytest.raises(ValueError, match="token_type_ids: a toy model takes none"):
        started(backbone, **batch, token_type_ids=torch.zeros(3, 10))


@pytest.mark.parametrize("name", FAMILIES)
def test_task_models(name: str) -> None:
    model = build(name, task="ForSequenceClassification")
    base = getattr(model, model.base_model_prefix)
    assert type(base) is type(build(name))
    assert base_model_of(model) is base
    assert base_model_of(base) is base
    assert backbone_for(model).model is base
    assert type(backbone_for(model)) is type(adapter(name))


def test_unknown_family() -> None:
    with pytest.raises(ValueError, match="a toy model could not be walked") as error:
        backbone_for(ToyModel(ToyConfig()))
    message = str(error.value)
    assert "@register_backbone('toy')" in message


@pytest.mark.parametrize("thing", [nn.Linear(2, 2), "bert", None])
def test_not_a_model(thing: Any) -> None:
    with pytest.raises(TypeError, match=f"model: got {type(thing).__name__}; wanted"):
        backbone_for(thing)


def test_registering(own_registry: dict[str, type[Backbone]]) -> None:
    class Mine(type(adapter("bert"))):  # type: ignore[misc]
        pass

    assert register_backbone("one", "bert")(Mine) is Mine
    assert own_registry["one"] is own_registry["bert"] is Mine
    assert type(backbone_for(build("bert"))) is Mine


@pytest.mark.parametrize("names", [(), (Backbone,)])
def test_registering_without_a_name(names: Any) -> None:
    with pytest.raises(TypeError, match="wanted the names of model types"):
        register_backbone(*names)
