"""The buffers of a captured shape: after each call's writing they hold that call and padding."""

from typing import ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eefast.runtime.graph.static_inputs import StaticInputs, forms

LENGTH, PAD = 6, 9
CPU = torch.device("cpu")


class WithTokens:
    """Of a backbone, what buffers go by."""

    takes = ("input_ids", "attention_mask", "token_type_ids", "position_ids", "inputs_embeds")
    padding: ClassVar = {**dict.fromkeys(takes, 0), "input_ids": PAD}
    absent: ClassVar = {"attention_mask": 1, "token_type_ids": 0}


def buffers_for(inputs, backbone=WithTokens):
    samples = len(next(iter(inputs.values())))
    return StaticInputs(backbone, forms(backbone, inputs, samples, LENGTH), CPU)


def call(length, *, mask=True, types=True, positions=True, batch=2):
    ids = torch.arange(1, batch * length + 1).view(batch, length)
    inputs = {"input_ids": ids}
    if mask:
        inputs["attention_mask"] = (ids % 3 > 0).long()
    if types:
        inputs["token_type_ids"] = ids % 2
    if positions:
        inputs["position_ids"] = torch.arange(length)[None]
    return inputs


def padded(values, fill):
    whole = torch.full((len(values), LENGTH), fill, dtype=values.dtype)
    whole[:, : values.shape[1]] = values
    return whole


def check(buffers, inputs, length):
    ones = torch.ones(2, length, dtype=torch.int64)
    wanted = {"attention_mask": ones, "token_type_ids": ones * 0, **inputs}
    assert buffers.tensors.keys() == wanted.keys()
    for name, values in wanted.items():
        assert torch.equal(buffers.tensors[name], padded(values, WithTokens.padding[name])), name


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


def test_embedded_inputs_leave_no_nan_behind():
    embeds = torch.full((2, 5, 4), torch.nan, dtype=torch.bfloat16)
    buffers = buffers_for({"inputs_embeds": embeds})
    assert buffers.tensors["inputs_embeds"].dtype == torch.bfloat16
    buffers.write({"inputs_embeds": embeds}, 5)
    buffers.write({"inputs_embeds": torch.ones(2, 3, 4)}, 3)
    assert buffers.tensors["inputs_embeds"].sum() == 2 * 3 * 4


def test_calls_share_buffers_if_dtypes_and_sizes_are_the_same():
    def form(length, **kinds):
        return forms(WithTokens, call(length, **kinds), 2, LENGTH)

    assert form(3) == form(5) == form(5, mask=False) == form(5, types=False)
    others = [form(5, positions=False), forms(WithTokens, call(5, batch=3), 3, LENGTH)]
    for dtype in (torch.bool, torch.int32, torch.float32):
        inputs = call(5)
        inputs["attention_mask"] = inputs["attention_mask"].to(dtype)
        others.append(forms(WithTokens, inputs, 2, LENGTH))
    positions = {**call(5), "position_ids": torch.zeros(2, 5, dtype=torch.int64)}
    others.append(forms(WithTokens, positions, 2, LENGTH))
    assert len({form(5), *others}) == 1 + len(others)


class WithPictures:
    takes = ("pixel_values",)
    padding: ClassVar = {}
    absent: ClassVar = {"attention_mask": 1}


def test_what_has_no_tokens_is_copied_whole():
    pictures = torch.randn(2, 3, 4, 4)
    inputs = {"pixel_values": pictures}
    (form,) = forms(WithPictures, inputs, 2, None)
    assert form == ("pixel_values", torch.float32, (2, 3, 4, 4))
    buffers = StaticInputs(WithPictures, (form,), CPU)
    assert buffers.write(inputs, None) == 1
    assert torch.equal(buffers.tensors["pixel_values"], pictures)


def test_launches_are_counted():
    buffers = buffers_for(call(6))
    assert buffers.write(call(6), 6) == 4
    assert buffers.write(call(6, types=False), 6) == 4  # token types are cleared
    assert buffers.write(call(6, types=False, mask=False), 6) == 3
    assert buffers.write(call(5, types=False), 5) == 6
    assert buffers.write(call(5, types=False), 5) == 3
