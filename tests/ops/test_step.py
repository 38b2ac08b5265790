"""Packing of an exit's small numbers."""

from hypothesis import given
from hypothesis import strategies as st

from eefast.ops import Gain, Keep, Step
from eefast.ops.step import LARGEST_EXIT

numbers = st.integers(0, LARGEST_EXIT)


@given(numbers, numbers, st.sampled_from(Keep), st.sampled_from(Gain), st.booleans())
def test_what_is_packed_is_unpacked(exit, layer, keep, gain, strict):
    step = Step(exit, layer, keep, gain, strict)
    assert Step.unpack(step.pack()) == step
    assert 0 <= step.pack() < 1 << 63
