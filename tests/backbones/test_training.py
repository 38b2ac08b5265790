"""The model stays the model: dropout, gradients, checkpointing, hooks, chunks, replaced layers."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from eefast.backbones import Backbone, backbone_for

from .families import (
    FAMILIES,
    PAIRS,
    adapter,
    build,
    grid_id,
    model_of,
    our_states,
    their_states,
    tokens,
)

# Those of transformers that can recompute a layer in the backward pass.
CHECKPOINTED = ["bert", "roberta", "electra", "distilbert", "modernbert"]


def gradients(model: nn.Module, states: list[Tensor]) -> dict[str, Tensor]:
    """Of a loss that reads every layer."""
    model.zero_grad()
    torch.stack([state[:, 0].sin().sum() for state in states]).sum().backward()
    return {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def assert_close(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize(("name", "attention"), PAIRS, ids=grid_id)
def test_dropout_follows_the_model(name: str, attention: str) -> None:
    dropout: dict[str, Any] = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    model = build(name, attention, **({} if name == "distilbert" else dropout))
    batch = tokens(padding="right")
    with torch.no_grad():
        calm = our_states(backbone_for(model), **batch)
        model.train()
        torch.manual_seed(0)
        theirs = their_states(name, model, **batch)
        torch.manual_seed(0)
        ours = our_states(backbone_for(model), **batch)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(ours, calm, strict=True))


@pytest.mark.parametrize(("name", "attention"), PAIRS, ids=grid_id)
def test_gradients(name: str, attention: str) -> None:
    # In fp64: gradients that meet in one weight may be added in another order.
    model = build(name, attention).double()
    batch = tokens(padding="right")
    theirs = gradients(model, their_states(name, model, **batch))
    ours = gradients(model, our_states(backbone_for(model), **batch))
    assert_close(ours, theirs)
    assert {name for name, _ in model.named_parameters()} - ours.keys() <= {
        "pooler.weight",
        "pooler.bias",
        "pooler.dense.weight",
        "pooler.dense.bias",
        "final_norm.weight",  # which only readouts need
    }


@pytest.mark.parametrize("name", CHECKPOINTED)
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated")
def test_gradient_checkpointing(name: str, reentrant: bool) -> None:
    model = build(name).double()
    batch = tokens(padding="right")
    wanted = gradients(model, our_states(backbone_for(model), **batch))
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    runs = []
    parts = {path: part for path, part in model.named_modules() if re.search(r"layers?\.0\.", path)}
    norm = next(part for part in parts.values() if isinstance(part, nn.LayerNorm))
    norm.register_forward_hook(lambda *_: runs.append(1))
    states = our_states(backbone_for(model), **batch)
    assert len(runs) == 1
    assert_close(gradients(model, states), wanted)
    assert len(runs) == 2


@pytest.mark.parametrize("name", FAMILIES)
def test_hooks_on_layers_run(name: str) -> None:
    model = build(name)
    backbone = backbone_for(model)
    seen: list[Tensor] = []

    def note(module: nn.Module, args: Any, output: Any) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)

    for layer in set(backbone._layers.values()):  # type: ignore[attr-defined]
        layer.register_forward_hook(note)
    states = our_states(backbone, **tokens())
    assert all(a is b for a, b in zip(seen, states[1:], strict=True))


@pytest.mark.parametrize(
    "name", ["bert", "roberta", "electra", "distilbert", "mpnet", "modernbert", "deberta-v2"]
)
def test_a_layer_replaced_later_is_the_one_that_runs(name: str) -> None:
    class Wrapped(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner
            self.attention_type = getattr(inner, "attention_type", None)

        def forward(self, *args: Any) -> Any:
            calls.append(len(args))
            return self.inner(*args)

    calls: list[int] = []
    model = build(name)
    backbone = backbone_for(model)
    stacks = {"distilbert": "transformer.layer", "modernbert": "layers"}
    stack = model.get_submodule(stacks.get(name, "encoder.layer"))
    before = our_states(backbone, **tokens())
    stack[1] = Wrapped(stack[1])
    after = our_states(backbone, **tokens())
    assert len(calls) == 1
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("name", ["bert", "roberta", "electra", "distilbert", "albert"])
def test_chunked_feed_forward(name: str) -> None:
    model = build(name, chunk_size_feed_forward=2)
    model.load_state_dict(model_of(name, "eager", torch.float32).state_dict())
    chunks = []
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.in_features == 48:
            module.register_forward_hook(lambda _, args, __: chunks.append(args[0].shape[1]))
    with torch.no_grad():
        ours = our_states(backbone_for(model), **tokens())
        assert set(chunks) == {2}
        theirs = their_states(name, model, **tokens())
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def attributes(module: nn.Module) -> dict[str, Any]:
    return {name: {**part.__dict__} for name, part in module.named_modules()}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_model_is_not_modified(name: str) -> None:
    model = build(name)
    before, weights = attributes(model), {k: v.clone() for k, v in model.state_dict().items()}
    config = model.config.to_dict()
    backbone: Backbone = backbone_for(model)
    with torch.no_grad():
        our_states(backbone, **tokens(padding="right"))
    after = attributes(model)
    assert after.keys() == before.keys()
    for path, part in after.items():
        assert part.keys() == before[path].keys()
        assert all(part[key] is before[path][key] for key in part)
        assert not part["_forward_hooks"]
        assert not part["_forward_pre_hooks"]
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert model.config.to_dict() == config
    assert type(adapter(name)) is type(backbone)
