"""The stand-in records and replays: what, when and with which memory."""

import pytest
import torch
import torch.nn.functional as F

from tests.runtime.graph.stand_in import (
    StandInDevice,
    Unwritten,
)
from tests.runtime.graph.stand_in.recorded import recorded, replay

pytestmark = pytest.mark.usefixtures("either_mode")


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


def test_poison_shows_where_nothing_watches(x):
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
