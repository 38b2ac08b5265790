"""The stand-in refuses what CUDA refuses."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.runtime.graph.stand_in import (
    GraphError,
    Refused,
    StandInGraph,
)
from tests.runtime.graph.stand_in.recorded import recorded, replay

pytestmark = pytest.mark.usefixtures("either_mode")

ASKS = {
    "item": lambda x: x.sum().item(),
    "bool": lambda x: bool(x.sum() > 1),
    "if": lambda x: 1 if x.sum() > 1 else 2,
    "int": lambda x: int(x.sum()),
    "float": lambda x: float(x.sum()),
    "index": lambda x: range(99)[x.long().max()],
    "tolist": lambda x: x.tolist(),
    "cpu": lambda x: x.cpu(),
    "numpy": lambda x: x.numpy(),
    "asarray": lambda x: np.asarray(x),
    "dlpack": lambda x: np.from_dlpack(x),
    "format": lambda x: f"{x.sum():.1f}",
    "repr": repr,
    "in": lambda x: 3.0 in x,
    "equal": lambda x: torch.equal(x, x),
    "allclose": lambda x: torch.allclose(x, x),
    "is_nonzero": lambda x: torch.is_nonzero(x.sum()),
    "one_hot": lambda x: F.one_hot(x.long()),
    "nonzero": lambda x: x.nonzero(),
    "where": lambda x: torch.where(x > 1),
    "argwhere": lambda x: torch.argwhere(x),
    "masked_select": lambda x: x.masked_select(x > 1),
    "mask": lambda x: x[x > 1],
    "byte mask": lambda x: torch.ops.aten.index.Tensor(x, [(x > 1).byte()]),
    "mask and index": lambda x: x[x.sum(1) > 1, x.long()[0, 0]],
    "write by mask": lambda x: x.__setitem__(x > 1, 0.0),
    "write by mask in place": lambda x: x.index_put_((x > 1,), x.sum()),
    "unique": lambda x: x.unique(),
    "repeat": lambda x: x.repeat_interleave(x[:, 0].long(), dim=0),
    "from the host": lambda x: x + torch.tensor([1.0, 2.0, 3.0, 4.0]),
    "from numpy": lambda x: x + torch.from_numpy(np.ones(4, dtype=np.float32)),
    "by a list": lambda x: x[[0, 2]],
}


@pytest.mark.parametrize("name", ASKS)
def test_the_host_cannot_ask(device, x, name):
    ASKS[name](x.clone())  # as such it is fine
    capture = device.capture()
    with pytest.raises(Refused, match="while a graph is captured"), capture.recording():
        ASKS[name](x)
    with pytest.raises(GraphError, match="no capture came to its end"):
        replay(capture)


@pytest.mark.parametrize("name", ASKS)
def test_an_error_that_is_swallowed_ends_the_capture_all_the_same(device, x, name):
    capture = device.capture()

    def work():
        with capture.recording():
            with suppress(Refused):
                ASKS[name](x)
            x.mul_(2)

    with pytest.raises(Refused, match="became invalid before"):
        work()
    recorded(device, lambda _: x * 2)  # the next capture is none the worse


def test_what_does_not_ask_is_captured(device, x):
    index = torch.tensor([2, 0])

    def work(_):
        return (
            x[index],
            x[index, index],
            x[1:, None, ::2],
            x[:, -1],
            torch.where(x > 1, x, 0.0),
            x.masked_fill(x > 1, 2.0),
            x.masked_fill(~(x > 1), -np.inf).softmax(-1),
            x.index_select(0, index),
            torch.full_like(x, 2.0) + torch.arange(4) + torch.ones(()),
            x.new_zeros(3)[:, None] + x,
            x.index_put((index,), x.sum()),
            torch.zeros_like(x[:, 1:]),
            x.max(dim=1).values,
            x.topk(2).indices,
            torch.cat([x, x]).view(2, 3, 4).transpose(0, 1).contiguous(),
        )

    capture, made = recorded(device, work)
    x.mul_(0.5)
    replay(capture)
    for ours, theirs in zip(made, work(capture), strict=True):
        assert torch.equal(ours, theirs)
        assert ours.stride() == theirs.stride()


@pytest.mark.parametrize(
    "draw",
    [
        lambda x: torch.rand_like(x),
        lambda x: torch.randn(3),
        lambda x: x.bernoulli_(),
        lambda x: F.dropout(x, 0.5),
        lambda x: F.scaled_dot_product_attention(*[x[None, None]] * 3, dropout_p=0.5),
    ],
)
def test_bodies_draw_no_random_numbers(device, x, draw):
    flag = torch.ones((), dtype=torch.bool)

    def work(capture, calm):
        with capture.only_if(flag):
            F.dropout(x, 0.5, training=False)
            F.scaled_dot_product_attention(x[None, None], x[None, None], x[None, None])
            if not calm:
                draw(x)

    recorded(device, lambda _: draw(x))
    recorded(device, lambda capture: work(capture, True))
    with pytest.raises(Refused, match="random numbers in the body of an IF node"):
        recorded(device, lambda capture: work(capture, False))


def test_random_numbers_are_drawn_on_replay(device, x):
    capture, made = recorded(device, lambda _: torch.rand_like(x))
    replay(capture)
    first = made.clone()
    replay(capture)
    assert not torch.equal(made, first)


FLAG = torch.ones((), dtype=torch.bool)


def test_calls_out_of_order(x):
    graph, other = StandInGraph(), StandInGraph()
    for call, *arguments in (
        (graph.capture_end,),
        (graph.replay,),
        (graph.begin_capture_to_if_node, FLAG),
        (graph.end_capture_to_conditional_node,),
        (StandInGraph.get_currently_capturing_graph,),
    ):
        with pytest.raises(GraphError):
            call(*arguments)
    graph.capture_begin()
    assert StandInGraph.get_currently_capturing_graph() is graph
    for call in (graph.capture_begin, other.capture_begin, other.capture_end, graph.reset):
        with pytest.raises(GraphError):
            call()
    graph.begin_capture_to_if_node(FLAG)
    graph.end_capture_to_conditional_node()
    x.add_(1)
    graph.capture_end()
    with pytest.raises(GraphError, match="captured already"):
        graph.capture_begin()
    graph.replay()
    assert x[0, 0] == 1
    graph.reset()
    with pytest.raises(GraphError, match="or the graph was reset"):
        graph.replay()


def test_a_node_left_open(x):
    graph = StandInGraph()
    graph.capture_begin()
    graph.begin_capture_to_if_node(FLAG)
    with pytest.raises(GraphError, match="1 IF nodes are still open"):
        graph.capture_end()
    x.add_(1)
    assert x[0, 0] == 1  # nothing is being captured any more


@pytest.mark.parametrize("wrong", ["end_capture_to_conditional_node", "replay"])
def test_calls_that_spoil_a_capture(wrong):
    graph = StandInGraph()
    graph.capture_begin()
    with pytest.raises(Refused):
        getattr(graph, wrong)()
    with pytest.raises(Refused, match="became invalid before"):
        graph.capture_end()


@pytest.mark.parametrize(
    ("flag", "got"),
    [
        (True, "True"),
        (torch.ones(1, dtype=torch.bool), r"torch.bool of shape \[1\]"),
        (torch.ones((), dtype=torch.int32), r"torch.int32 of shape \[\]"),
    ],
)
def test_a_flag_is_a_bool_scalar(device, flag, got):
    def work(capture):
        with capture.only_if(flag):
            pass

    with pytest.raises(Refused, match=f"pred must be a bool scalar, got {got}"):
        recorded(device, work)


@pytest.mark.parametrize("handle", [torch.zeros(1, dtype=torch.int64), torch.zeros(())])
def test_a_handle_is_an_int64_scalar(device, handle):
    def work(capture):
        with capture.only_if(FLAG, handle):
            pass

    with pytest.raises(Refused, match="handle must be an int64 scalar"):
        recorded(device, work)


def test_another_thread_is_not_captured(device, x):
    with ThreadPoolExecutor(1) as pool:

        def work(_):
            with torch.no_grad():
                pool.submit(lambda: torch.no_grad()(x.clone)().sum().item()).result()
            with pytest.raises(GraphError, match="another capture is under way"):
                pool.submit(StandInGraph().capture_begin).result()
            return x * 2

        capture, made = recorded(device, work)
    replay(capture)
    assert torch.equal(made, x * 2)
