"""ViT and DeiT: transformers' own hidden states bit for bit, rows dropped, gradients, readout."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from eefast.backbones import backbone_for, gathered
from eefast.backbones.families import ViTBackbone

from .families import assert_as_exact, drive, our_states, started

FAMILIES = ("ViT", "DeiT")
GRID = [
    (name, attention, dtype)
    for name in FAMILIES
    for attention in ("sdpa", "eager")
    for dtype in (torch.float32, torch.bfloat16)
]


def build(name: str, attention: str = "sdpa", task: str = "Model", dropout: float = 0.0) -> Any:
    config = getattr(transformers, f"{name}Config")(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        image_size=32,
        patch_size=8,
        initializer_range=0.3,
        hidden_dropout_prob=dropout,
    )
    config._attn_implementation = attention
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}{task}")(config).eval()
    with torch.no_grad():  # zero biases and unit norms hide mistakes
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def images(batch: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(batch)
    return {"pixel_values": torch.randn(batch, 3, 32, 32, generator=generator)}


def their_states(model: Any, batch: dict[str, Tensor]) -> list[Tensor]:
    last: list[Tensor] = []
    hook = model.layers[-1].register_forward_hook(lambda *call: last.append(call[-1]))
    states = model(**batch, output_hidden_states=True).hidden_states
    hook.remove()
    return [*states[:-1], last[0]]  # transformers' last entry may be the normed one


@pytest.mark.parametrize(("name", "attention", "dtype"), GRID)
@pytest.mark.parametrize("batch", [1, 3])
@torch.no_grad()
def test_states(name: str, attention: str, dtype: torch.dtype, batch: int) -> None:
    model = build(name, attention).to(dtype)
    ours, theirs = (
        our_states(backbone_for(model), **images(batch)),
        their_states(model, images(batch)),
    )
    assert type(backbone_for(model)) is ViTBackbone
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert ours[0].dtype == dtype  # images in fp32 suit a model of any dtype


@pytest.mark.parametrize(("name", "attention", "dtype"), GRID)
@torch.no_grad()
def test_selected_between_layers(name: str, attention: str, dtype: torch.dtype) -> None:
    model, rows = build(name, attention).to(dtype), torch.tensor([4, 1])
    backbone, batch = backbone_for(model), images(5)
    alone = {"pixel_values": batch["pixel_values"][rows]}
    hidden, context = started(backbone, **batch)
    hidden = backbone.layer(1, hidden, context)
    ours = drive(backbone, hidden[rows], context.select(rows), after=1)
    theirs = their_states(model, alone)[1:]
    exact = their_states(copy.deepcopy(model).double(), alone)[1:]
    for got, wanted, reference in zip(ours, theirs, exact, strict=True):
        assert_as_exact(got, wanted, reference)


@pytest.mark.parametrize("name", FAMILIES)
def test_training(name: str) -> None:
    model = build(name, dropout=0.1).double().train()
    gradients = []

    def ours() -> list[Tensor]:
        return our_states(backbone_for(model), **images())

    for states in (lambda: their_states(model, images()), ours):
        model.zero_grad()
        torch.manual_seed(0)
        torch.stack([state[:, 0].sin().sum() for state in states()]).sum().backward()
        found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        gradients.append(found)
    assert gradients[0].keys() == gradients[1].keys()
    assert len(gradients[0]) > 40
    for path, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][path], gradient, rtol=1e-9, atol=1e-12, msg=path)


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_the_last_exit_reads_what_the_task_model_reads(name: str) -> None:
    model, seen = build(name, task="ForImageClassification"), []
    model.classifier.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model(**images())
    backbone = backbone_for(model)
    hidden, context = started(backbone, **images())
    last = drive(backbone, hidden, context)[-1]
    vectors = gathered(*backbone.readout(3, last, context))
    torch.testing.assert_close(vectors, seen[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_no_samples_and_what_is_refused(name: str) -> None:
    backbone = backbone_for(build(name))
    states = our_states(backbone, **images(0))
    assert [len(state) for state in states] == [0] * 4
    assert gathered(*backbone.readout(3, states[-1], None)).shape == (0, 32)
    assert backbone.check(images(2)) == (2, None)
    assert backbone.padding == {}
    with pytest.raises(ValueError, match=r"pixel_values: got shape \[3, 32, 32\]"):
        backbone.check({"pixel_values": torch.zeros(3, 32, 32)})
    with pytest.raises(ValueError, match=r"attention_mask: a .* model takes none"):
        backbone.check({**images(), "attention_mask": torch.ones(3, 17)})
