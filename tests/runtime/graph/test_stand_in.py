"""The stand-in for CUDA graphs: it records and replays, and it refuses what CUDA refuses."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.runtime.graph.stand_in import (
    GraphError,
    Refused,
    Stale,
    StandInDevice,
    StandInGraph,
    Unwritten,
)


@pytest.fixture(params=[True, False], ids=["inference mode", "no grad"], autouse=True)
def _mode(request):
    with torch.inference_mode(request.param), torch.no_grad():
        yield


@pytest.fixture
def device():
    with (device := StandInDevice()).watching():
        yield device


@pytest.fixture
def x():
    return torch.arange(12.0).reshape(3, 4)


def recorded(device, work):
    """A capture of `work()`, and what it gave."""
    capture = device.capture()
    with capture.recording():
        made = work(capture)
    return capture, made


def replay(capture):
    with capture.turn():
        capture.replay()


# Recording and replaying


def test_nothing_is_done_before_a_replay(device, x):
    before, total = x.clone(), torch.zeros(3)

    def work(_):
        doubled = x * 2
        total.add_(doubled.sum(1))
        x.mul_(3)
        return doubled, doubled.long(), doubled > 2

    capture, (doubled, whole, large) = recorded(device, work)
    assert torch.equal(x, before)
    assert not total.any()
    assert (doubled.shape, doubled.dtype, doubled.stride()) == ((3, 4), torch.float32, (4, 1))
    for made in (doubled, whole, large):
        with pytest.raises(Unwritten):
            made.clone()
    replay(capture)
    assert torch.equal(doubled, before * 2)
    assert torch.equal(whole, doubled.long())
    assert torch.equal(large, doubled > 2)
    assert torch.equal(total, doubled.sum(1))
    assert torch.equal(x, before * 3)


def test_poison_shows_where_nobody_watches(x):
    device = StandInDevice()
    _, made = recorded(device, lambda _: (x * 2, x.long(), x > 2, x.bfloat16(), x.byte()))
    floats, whole, flags, halves, bytes_ = made
    assert floats.isnan().all()
    assert halves.isnan().all()
    assert (whole == torch.iinfo(torch.int64).min).all()
    assert flags.all()
    assert (bytes_ == 255).all()


def test_a_replay_reads_what_is_in_the_buffers_then(device, x):
    scale = 2.0

    def work(_):
        return F.linear(x * scale, torch_weight).softmax(-1).t().reshape(-1)

    torch_weight = torch.linspace(-1, 1, 20).reshape(5, 4)
    capture, made = recorded(device, work)
    for _ in range(3):
        x.uniform_()
        replay(capture)
        assert torch.equal(made, F.linear(x * 2.0, torch_weight).softmax(-1).t().reshape(-1))
        scale += 1  # what is no tensor stays what it was


def test_results_show_the_memory_that_they_show_elsewhere(device, x):
    def work(_):
        made = x + 1
        row, same = made[1], made.mul_(2)
        out = torch.empty(4)
        also = torch.add(row, 1, out=out)
        parts = made.split(2, dim=1)
        as_before = x.to(torch.float32)
        return made, row, same, out, also, parts, as_before, made.reshape(12), made.t().reshape(12)

    capture, made = recorded(device, work)
    made, row, same, out, also, parts, as_before, flat, copied = made
    assert same is made
    assert also is out
    assert as_before.data_ptr() == x.data_ptr()
    assert row.data_ptr() == made[1].data_ptr()
    assert flat.data_ptr() == made.data_ptr()
    assert copied.data_ptr() != made.data_ptr()
    replay(capture)
    assert torch.equal(made, (x + 1) * 2)
    assert torch.equal(out, made[1] + 1)
    assert torch.equal(torch.cat(parts, 1), made)
    assert torch.equal(copied, made.t().reshape(12))


def test_indices_and_divisors_may_be_of_any_value(device):
    index, table = torch.tensor([2, 0]), torch.arange(6.0).reshape(3, 2)
    number, divisor = torch.tensor([7, 8]), torch.tensor([2, 3])
    capture, (rows, looked_up, quotient) = recorded(
        device,
        lambda _: (table[index], F.embedding(index + 0, table), (number + 0) // (divisor + 0)),
    )
    replay(capture)
    assert torch.equal(rows, table[[2, 0]])
    assert torch.equal(looked_up, table[[2, 0]])
    assert quotient.tolist() == [3, 2]


def nested(flags, log):
    """Writes 1, 2, 3 to `log` in bodies nested under `flags`, and what comes between and after."""

    def work(capture):
        log.zero_()
        with capture.only_if(flags[0]):
            log[0] = 1
            with capture.only_if(flags[1]):
                log[1] = 2
                with capture.only_if(flags[2], handle=torch.zeros((), dtype=torch.int64)):
                    log[2] = 3
            log[3] = 4
        with capture.only_if(flags[2]):
            log[4] = 5

    return work


@pytest.mark.parametrize("number", range(8))
def test_a_body_is_done_if_its_flag_is_set_and_it_is_reached(device, number):
    flags, log = torch.zeros(3, dtype=torch.bool), torch.zeros(5)
    capture, _ = recorded(device, nested(flags, log))
    assert (capture.graph.if_nodes, capture.graph.depth) == (4, 3)
    for _ in range(2):
        a, b, c = (bool(number >> bit & 1) for bit in range(3))
        flags.copy_(torch.tensor([a, b, c]))
        replay(capture)
        assert log.tolist() == [a, 2 * (a and b), 3 * (a and b and c), 4 * a, 5 * c]
        assert capture.graph.bodies_run == a + (a and b) + (a and b and c) + c
        number = 7 - number


def test_a_flag_counts_as_it_is_when_its_node_is_reached(device, x):
    flag, log = torch.zeros((), dtype=torch.bool), torch.zeros(2)

    def work(capture):
        log.zero_()
        torch.gt(x.sum(), 10, out=flag)
        with capture.only_if(flag):
            log[0] = 1
            flag.fill_(False)
        with capture.only_if(flag):
            log[1] = 1

    capture, _ = recorded(device, work)
    for total, body in ((0, 0.0), (20, 1.0)):
        x.fill_(total / 12)
        replay(capture)
        assert log.tolist() == [body, 0.0]


# What asks the device for a value

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


# The calls, out of order

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


# Memory

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
    for taken in (False, True, False):  # an earlier replay's result is of no use
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


def test_room_that_nobody_writes(device):
    capture, _ = recorded(device, lambda _: torch.empty(2) + 1)
    with pytest.raises(Unwritten, match=r"aten.add.Tensor reads what aten.empty"):
        replay(capture)


def test_a_flag_that_nobody_wrote(device):
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


# The device


def test_turns(device, x):
    capture, _ = recorded(device, lambda _: x.mul_(2))
    with pytest.raises(GraphError, match="it is not this thread's turn"):
        capture.replay()
    with ThreadPoolExecutor(1) as pool, capture.turn():
        for call in (capture.turn().__enter__, capture.close, pool.submit(capture.replay).result):
            with pytest.raises(GraphError):
                call()
        with pytest.raises(GraphError, match="another turn of this capture is under way"):
            pool.submit(capture.turn().__enter__).result()
        other, _ = recorded(device, lambda _: x.mul_(2))
        replay(other)  # that is another matter
    assert (capture.turns, capture.graph.replays, other.graph.replays) == (1, 0, 1)


def test_a_turn_ends_with_an_error(device, x):
    capture, _ = recorded(device, lambda _: x.mul_(2))
    with pytest.raises(ZeroDivisionError), capture.turn():
        _ = 1 / 0
    replay(capture)


def test_turns_watch_in_every_thread(x):
    flag = torch.zeros((), dtype=torch.bool)

    def work(capture):
        with capture.only_if(flag):
            return x * 2

    capture, made = recorded(StandInDevice(), work)

    def call():
        with torch.no_grad(), capture.turn():
            capture.replay()
            with pytest.raises(Unwritten):
                made.clone()
        return made.isnan().all()

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert call()


def test_counts(device, x):
    captures = [recorded(device, lambda _: x * 2)[0] for _ in range(3)]
    size = x.nbytes
    assert (device.opened, device.closed, device.reserved_bytes) == (3, 0, 3 * size)
    captures[1].close()
    captures[1].close()
    assert (device.opened, device.closed, device.reserved_bytes) == (3, 1, 2 * size)
    replay(captures[0])
    replay(captures[2])
    assert (device.replays, device.warm_ups) == (2, 0)
    with device.warming_up():
        assert torch.equal(x * 2, x + x)
    assert device.warm_ups == 1
    with pytest.raises(Refused, match="warming_up: a capture is under way"):
        recorded(device, lambda _: device.warming_up().__enter__())
    spoilt = device.captures[-1]
    with pytest.raises(Refused):
        recorded(device, lambda _: (x * 2).sum().item())
    assert device.reserved_bytes > 2 * size  # until it is closed
    device.captures[-1].close()
    spoilt.close()
    assert device.reserved_bytes == 2 * size
