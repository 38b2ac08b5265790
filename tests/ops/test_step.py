"""Packing of an exit's small numbers."""

from hypothesis import given
from hypothesis import strategies as st

from eefast.ops import Accumulate, Gain, Keep, ScorerKind, Step
from eefast.ops.step import LARGEST_EXIT

numbers = st.integers(0, LARGEST_EXIT)


@given(
    numbers,
    numbers,
    st.sampled_from(Keep),
    st.sampled_from(Gain),
    st.booleans(),
    st.sampled_from(Accumulate),
    st.sampled_from(ScorerKind),
)
def test_what_is_packed_is_unpacked(exit, layer, keep, gain, strict, accumulate, scorer):
    step = Step(exit, layer, keep, gain, strict, accumulate, scorer)
    assert Step.unpack(step.pack()) == step
    assert 0 <= step.pack() < 1 << 63
    assert Step(exit, layer, *step.recurrence) == step
