"""The additive mask: its form, when there is none, and that the host does not read it."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from eefast.backbones import attention_bias, backbone_for, hides_nothing

from .families import (
    FAMILIES,
    GRID,
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

MASK = torch.tensor([[1, 1, 0], [0, 1, 1]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_form(implementation: str, dtype: torch.dtype) -> None:
    bias = attention_bias(MASK, torch.ones(2, 3, 8, dtype=dtype), implementation)
    assert bias is not None
    assert (bias.shape, bias.dtype) == ((2, 1, 1, 3), dtype)
    low = -torch.inf if implementation == "sdpa" else torch.finfo(dtype).min
    assert bias.flatten().tolist() == [0, 0, low, low, 0, 0]


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float32, torch.uint8])
def test_every_dtype_of_a_mask(dtype: torch.dtype) -> None:
    hidden = torch.ones(2, 3, 8)
    bias = attention_bias(MASK.to(dtype), hidden, "sdpa")
    wanted = attention_bias(MASK, hidden, "sdpa")
    assert bias is not None
    assert wanted is not None
    assert torch.equal(bias, wanted)
    assert hides_nothing(torch.ones_like(MASK, dtype=dtype))
    assert not hides_nothing(MASK.to(dtype))


def test_none_where_nothing_is_hidden() -> None:
    assert attention_bias(None, torch.ones(2, 3, 8), "sdpa") is None
    assert hides_nothing(MASK[:0])
    backbone = adapter("bert", "sdpa", torch.float32)
    _, inputs = started(backbone, **tokens(), attention_mask=torch.ones(3, 10))
    assert inputs.mask is None


def test_a_mask_that_hides_nothing_is_kept_where_looking_would_wait() -> None:
    assert not hides_nothing(torch.ones(2, 3, device="meta"))


@pytest.mark.parametrize("mask", [None, torch.ones(2, 3), MASK])
def test_unsupported_attention(mask: Tensor | None) -> None:
    # Whether or not there is a mask: what is refused must not depend on what is in the batch.
    with pytest.raises(ValueError, match=r"got 'flash_attention_2'; wanted one of sdpa, eager"):
        attention_bias(mask, torch.ones(2, 3, 8), "flash_attention_2")


def test_the_model_s_attention_is_asked_at_each_call() -> None:
    model = copy.deepcopy(model_of("bert", "sdpa", torch.float32))
    backbone = backbone_for(model)
    low = []
    for attention in ("sdpa", "eager"):
        model.set_attn_implementation(attention)
        _, inputs = started(backbone, **tokens(padding="right"))
        assert inputs.mask is not None
        low.append(inputs.mask.min().item())
    assert low == [-torch.inf, torch.finfo(torch.float32).min]
    model.config._attn_implementation = "flex_attention"
    with pytest.raises(ValueError, match="got 'flex_attention'"):
        started(backbone, **tokens())


class _NeverOnTheHost(TorchDispatchMode):
    """Every tensor that is made is made on the model's device."""

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        assert all(tensor.is_meta for tensor in made), f"{func} runs on the host"
        return out


@pytest.mark.parametrize(("name", "attention"), PAIRS, ids=grid_id)
@pytest.mark.parametrize("embedded", [False, True])
def test_the_host_reads_nothing(name: str, attention: str, embedded: bool) -> None:
    # A meta tensor has no numbers: .item(), bool() and nonzero() raise.
    model = copy.deepcopy(model_of(name, attention, torch.float32)).to("meta")
    inputs = {key: value.to("meta") for key, value in tokens(padding="right").items()}
    if embedded:
        inputs["inputs_embeds"] = model.get_input_embeddings()(inputs.pop("input_ids"))
    backbone = backbone_for(model)
    with _NeverOnTheHost():
        hidden, layer_inputs = started(backbone, **inputs)
    assert layer_inputs.mask is not None
    # DeBERTa's layers make their scale on the host.
    with _NeverOnTheHost() if FAMILIES[name].captured else nullcontext():
        states = drive(backbone, hidden, layer_inputs)
    assert states[-1].shape == (3, 10, 32)


@pytest.mark.parametrize(
    ("name", "attention", "dtype"),
    [case for case in GRID if FAMILIES[case[0]].additive],
    ids=grid_id,
)
def test_mask_kept_that_hides_nothing(name: str, attention: str, dtype: torch.dtype) -> None:
    # What other devices than the CPU do, where transformers drops the mask: another kernel runs
    # there, so the states may differ, but within twice transformers' own error.
    backbone, batch = adapter(name, attention, dtype), tokens()
    with torch.no_grad():
        hidden, inputs = started(backbone, **batch)
        assert inputs.mask is None
        kept = dataclasses.replace(inputs, mask=hidden.new_zeros(3, 1, 1, 10))
        ours = drive(backbone, hidden, kept)
        theirs = their_states(name, model_of(name, attention, dtype), **batch)
        exact = their_states(name, exact_model_of(name, attention, dtype), **batch)
    for got, wanted, reference in zip(ours, theirs, exact, strict=True):
        assert_as_exact(got, wanted, reference)


@pytest.mark.parametrize(("name", "attention"), PAIRS, ids=grid_id)
def test_hidden_tokens_do_not_matter(name: str, attention: str) -> None:
    batch = tokens(padding="right")
    other = {**batch, "input_ids": batch["input_ids"].clone()}
    hidden = batch["attention_mask"] == 0
    # The padding token itself stays: RoBERTa and MPNet count positions by it.
    embeds = adapter(name, attention).model.get_input_embeddings()
    shown = [{"inputs_embeds": embeds(b["input_ids"]).detach()} for b in (batch, other)]
    shown[1]["inputs_embeds"][hidden] += 1.0
    with torch.no_grad():
        a, b = (
            our_states(adapter(name, attention), **inputs, attention_mask=batch["attention_mask"])[
                -1
            ]
            for inputs in shown
        )
    assert torch.equal(a[~hidden], b[~hidden])
    # DeBERTa clears what is hidden, so that nothing is left of it.
    assert torch.equal(a[hidden], b[hidden]) is not FAMILIES[name].additive
