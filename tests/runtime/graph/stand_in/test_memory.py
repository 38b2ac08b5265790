"""The stand-in knows which memory holds something, and for how long."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.runtime.graph.stand_in import (
    Stale,
    StandInDevice,
    Unwritten,
)
from tests.runtime.graph.stand_in.recorded import recorded, replay

pytestmark = pytest.mark.usefixtures("either_mode")

READS = {
    "clone": lambda made: made.clone(),
    "copy_": lambda made: torch.zeros(3, 4).copy_(made),
    "item": lambda made: made[0, 0].item(),
    "bool": lambda made: bool(made[0, 0]),
    "index": lambda made: made[torch.tensor([0])],
    "add_": lambda made: made.add_(1),
    "matmul": lambda made: made @ made.t(),
    "linear": lambda made: F.linear(made, made),
    "reshape with a copy": lambda made: made.t().reshape(12),
    "to": lambda made: made.to(torch.float64),
    "stack": lambda made: torch.stack([torch.zeros(3, 4), made]),
    "out": lambda made: torch.add(made, 1, out=torch.empty(3, 4)),
    "equal": lambda made: torch.equal(made, made),
    "numpy": lambda made: made.numpy(),
    "asarray": lambda made: np.asarray(made),
    "dlpack": lambda made: np.from_dlpack(made),
    "tolist": lambda made: made.tolist(),
    "cpu": lambda made: made.cpu(),
    "repr": repr,
}
TOUCHES_ONLY = {
    "view": lambda made: made.view(4, 3)[1:].t()[None],
    "reshape": lambda made: made.reshape(12),
    "detach": lambda made: made.detach(),
    "shape": lambda made: (made.shape, made.dtype, made.is_contiguous(), made.data_ptr()),
    "empty_like": lambda made: torch.empty_like(made).fill_(0),
}


@pytest.mark.parametrize("name", [*READS, *TOUCHES_ONLY])
def test_what_the_path_taken_did_not_write_cannot_be_read(device, x, name):
    flag = torch.zeros((), dtype=torch.bool)
    read = {**READS, **TOUCHES_ONLY}[name]

    def work(capture):
        with capture.only_if(flag):
            return x * 2

    capture, made = recorded(device, work)
    for taken in (False, True, False):  # an earlier replay's result does not count
        flag.fill_(taken)
        replay(capture)
        if taken or name in TOUCHES_ONLY:
            read(made)
        else:
            with pytest.raises(Unwritten):
                read(made)


def test_a_write_outside_of_the_graph_counts_until_the_next_replay(device):
    capture, made = recorded(device, lambda _: torch.empty(3))
    made.fill_(1)
    assert made.sum() == 3
    replay(capture)
    with pytest.raises(Unwritten):
        made.sum()


@pytest.mark.parametrize("name", ["clone", "copy_", "linear", "add_", "stack"])
def test_the_graph_itself_cannot_read_it(device, x, name):
    flag = torch.zeros((), dtype=torch.bool)

    def work(capture):
        with capture.only_if(flag):
            made = x * 2
        return READS[name](made)

    capture, _ = recorded(device, work)
    for taken in (True, False):
        flag.fill_(taken)
        if taken:
            replay(capture)
        else:
            with pytest.raises(Unwritten, match="on the path taken"):
                replay(capture)


@pytest.mark.parametrize(
    "write", [Tensor.zero_, lambda t: t.fill_(1), lambda t: t.copy_(t.new_ones(2))]
)
def test_room_may_be_written_first(device, write):
    def work(_):
        room = torch.empty(2)
        write(room)
        return room + 1

    capture, made = recorded(device, work)
    replay(capture)
    assert made[0] in (1, 2)


def test_room_that_is_never_written(device):
    capture, _ = recorded(device, lambda _: torch.empty(2) + 1)
    with pytest.raises(Unwritten, match=r"aten.add.Tensor reads what aten.empty"):
        replay(capture)


def test_a_flag_that_was_never_written(device):
    def work(capture):
        with capture.only_if(torch.empty((), dtype=torch.bool)):
            pass

    capture, _ = recorded(device, work)
    with pytest.raises(Unwritten, match="the condition of an IF node reads"):
        replay(capture)


def test_tensors_from_before_must_live(device, x):
    kept = [torch.ones(12)]
    capture, made = recorded(device, lambda _: x + kept[0].view(3, 4))
    replay(capture)
    assert torch.equal(made, x + 1)
    kept[0] = kept[0][3:]  # any tensor on the same memory keeps it
    kept[0].fill_(5)
    replay(capture)
    assert made[0, 2] == x[0, 2] + 1
    assert made[0, 3] == x[0, 3] + 5
    kept.clear()
    with pytest.raises(Stale, match=r"stale buffer: a tensor of 48 bytes.*aten.add.Tensor"):
        replay(capture)
    assert capture.graph.replays == 2


def test_of_a_tensor_whose_form_alone_counts_nothing_is_kept(device, x):
    kept = [torch.ones(3, 4)]
    capture, made = recorded(device, lambda _: torch.zeros_like(kept.pop()) + x)
    replay(capture)
    assert torch.equal(made, x)


def test_another_graphs_memory_may_be_used_while_it_is_there(device, x):
    first, doubled = recorded(device, lambda _: x * 2)
    second, more = recorded(device, lambda _: doubled + 1)
    with pytest.raises(Unwritten):
        replay(second)
    replay(first)
    replay(second)
    assert torch.equal(more, x * 2 + 1)
    first.close()
    with pytest.raises(Stale, match="memory of a graph that has been reset"):
        replay(second)


@pytest.mark.parametrize("name", [*READS, "fill_", "view"])
@pytest.mark.parametrize("how", ["closed", "dropped"])
def test_memory_that_was_given_back_is_of_no_use(device, x, name, how):
    use = {**READS, "fill_": lambda made: made.fill_(1), "view": lambda made: made.view(12)}[name]
    capture, made = recorded(device, lambda _: x * 2)
    replay(capture)
    if how == "closed":
        capture.close()
        with pytest.raises(Stale):
            replay(capture)
    else:
        device.captures.clear()
        del capture
    with pytest.raises(Stale, match="uses memory of a graph that has been reset"):
        use(made)


def test_memory_that_was_given_back_holds_poison(x):
    capture, made = recorded(StandInDevice(), lambda _: x * 2)
    replay(capture)
    assert torch.equal(made, x * 2)
    capture.close()
    assert made.isnan().all()
