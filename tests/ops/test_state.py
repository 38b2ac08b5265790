"""The running state of a call, and the one in a block of memory."""

import pytest
import torch

from eefast.ops import ExitState, PackedState

SHAPES = [(1, 2, 6), (3, 5, 12), (4, 1, 1), (2, None, 3), (0, 3, 2)]


@pytest.mark.parametrize(("samples", "classes", "exits"), SHAPES)
def test_a_packed_state_starts_as_any_other(samples, classes, exits):
    packed = PackedState(samples, classes, exits, "cpu")
    for tensor in packed.state[:5]:
        if tensor is not None:
            tensor.fill_(1)
    packed.start()
    for ours, plain in zip(packed.state, ExitState.start(samples, classes, exits), strict=True):
        assert (ours is None) == (plain is None)
        if plain is not None:
            assert ours.dtype == plain.dtype
            assert torch.equal(ours, plain)
            assert ours.is_contiguous()
            assert ours.data_ptr() % 16 == 0


def test_the_parts_do_not_overlap():
    state = PackedState(3, 5, 7, "cpu").state
    parts = [tensor for tensor in state if tensor is not None]
    for number, part in enumerate(parts):
        part.fill_(number)
    assert [part.unique().tolist() for part in parts[:4]] == [[0], [1], [2], [3]]


def test_a_copy_is_not_touched_by_the_next_call():
    packed = PackedState(3, 2, 4, "cpu")
    packed.start()
    packed.state.exit_layer.copy_(torch.tensor([2, 1, 4]))
    packed.state.logits[1] = 7.0
    before = packed.copy()
    packed.start()
    assert before.exit_layer.tolist() == [2, 1, 4]
    assert before.logits[1].tolist() == [7.0, 7.0]
    assert packed.state.logits.eq(0).all()


def test_off_the_cpu_there_is_control_and_a_copy_needs_none():
    packed = PackedState(3, 2, 4, "meta")
    assert packed.state.control.shape == (4, 2)
    assert packed.copy().control is None
