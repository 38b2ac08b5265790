"""The buffers of a captured shape: after each call's writing they hold that call and padding."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eefast.backbones import ModelInputs
from eefast.runtime.graph.static_inputs import StaticInputs

LENGTH, PAD = 6, 9
CPU = torch.device("cpu")


def buffers_for(inputs, token_types=True):
    return StaticInputs(inputs, LENGTH, token_types=token_types, padding=PAD, device=CPU)


def call(length, *, mask=True, types=True, positions=True, batch=2):
    ids = torch.arange(1, batch * length + 1).view(batch, length)
    return ModelInputs(
        input_ids=ids,
        attention_mask=(ids % 3 > 0).long() if mask else None,
        token_type_ids=ids % 2 if types else None,
        position_ids=torch.arange(length)[None] if positions else None,
    )


def padded(values, fill):
    whole = torch.full((2, LENGTH), fill, dtype=values.dtype)
    whole[:, : values.shape[1]] = values
    return whole


def check(buffers, inputs, length):
    held = buffers.tensors
    zeros, ones = torch.zeros(2, length, dtype=torch.int64), torch.ones(2, length)
    mask = ones if inputs.attention_mask is None else inputs.attention_mask
    types = zeros if inputs.token_type_ids is None else inputs.token_type_ids
    assert torch.equal(held.input_ids, padded(inputs.input_ids, PAD))
    assert torch.equal(held.attention_mask, padded(mask.bool(), False))
    assert torch.equal(held.token_type_ids, padded(types, 0))
    assert torch.equal(held.position_ids, padded(inputs.position_ids.expand(2, -1), 0))


@given(st.lists(st.tuples(st.integers(1, LENGTH), st.booleans(), st.booleans()), min_size=1))
def test_nothing_is_left_of_earlier_calls(calls):
    buffers = buffers_for(call(1))
    for length, mask, types in calls:
        inputs = call(length, mask=mask, types=types)
        buffers.write(inputs, length)
        check(buffers, inputs, length)


def test_an_interrupted_call_leaves_nothing_either(monkeypatch):
    buffers, copy = buffers_for(call(6)), torch.Tensor.copy_
    buffers.write(call(2), 2)

    def interrupted(buffer, values):
        copy(buffer, values)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(torch.Tensor, "copy_", interrupted)
        with pytest.raises(KeyboardInterrupt):
            buffers.write(call(6), 6)
    inputs = call(2)
    buffers.write(inputs, 2)
    check(buffers, inputs, 2)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.int32, torch.uint8])
def test_whatever_is_not_0_shows_a_token(dtype):
    mask = torch.tensor([[0.5, 0.0, 2.0], [1.0, 1.0, 0.0]]).to(dtype)
    inputs = call(3)._replace(attention_mask=mask)
    buffers = buffers_for(inputs)
    buffers.write(inputs, 3)
    assert torch.equal(buffers.tensors.attention_mask[:, :3], mask != 0)


def test_embedded_inputs_leave_no_nan_behind():
    embeds = torch.full((2, 5, 4), torch.nan, dtype=torch.bfloat16)
    buffers = buffers_for(ModelInputs(inputs_embeds=embeds), token_types=False)
    assert buffers.tensors.input_ids is None
    assert buffers.tensors.inputs_embeds.dtype == torch.bfloat16
    buffers.write(ModelInputs(inputs_embeds=embeds), 5)
    buffers.write(ModelInputs(inputs_embeds=torch.ones(2, 3, 4)), 3)
    assert buffers.tensors.inputs_embeds.sum() == 2 * 3 * 4


def test_token_types_are_left_out_where_the_family_has_none():
    assert buffers_for(call(3), token_types=False).tensors.token_type_ids is None


def test_launches_are_counted():
    buffers = buffers_for(call(6))
    assert buffers.write(call(6), 6) == 4
    assert buffers.write(call(6, types=False), 6) == 4  # token types are cleared
    assert buffers.write(call(6, types=False, mask=False), 6) == 3
    assert buffers.write(call(5, types=False), 5) == 6
    assert buffers.write(call(5, types=False), 5) == 3
