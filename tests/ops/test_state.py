"""The running state of a call, and the one in a block of memory."""

import pytest
import torch

from eefast.ops import ExitState, PackedState

SHAPES = [(1, 2, 6), (3, 5, 12), (4, 1, 1), (0, 3, 2)]
PARTS = [(False, False), (True, False), (True, True)]  # votes, memory


@pytest.mark.parametrize(("votes", "memory"), PARTS)
@pytest.mark.parametrize(("samples", "classes", "exits"), SHAPES)
def test_a_packed_state_starts_as_any_other(samples, classes, exits, votes, memory):
    packed = PackedState(samples, classes, exits, "cpu", votes, memory)
    for tensor in packed.state:
        if tensor is not None:
            tensor.fill_(1)
    packed.start()
    plain = ExitState.start(samples, classes, exits, votes=votes, memory=memory)
    assert (plain.votes is not None, plain.memory is not None) == (votes, memory)
    for ours, theirs in zip(packed.state, plain, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            assert ours.dtype == theirs.dtype
            assert torch.equal(ours, theirs)
            assert ours.is_contiguous()
            assert ours.data_ptr() % 16 == 0


def test_the_parts_do_not_overlap():
    state = PackedState(3, 5, 7, "cpu", votes=True, memory=True).state
    assert state.control is None
    parts = [tensor for tensor in state[:-1] if tensor.dtype != torch.bool]
    state.running.fill_(True)
    for number, part in enumerate(parts):
        part.fill_(number)
    assert [part.unique().tolist() for part in parts] == [[n] for n in range(len(parts))]
    assert state.running.all()


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
