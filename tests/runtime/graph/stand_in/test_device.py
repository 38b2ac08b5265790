"""The stand-in as a device: turns, threads and what it counts."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from tests.runtime.graph.stand_in import (
    GraphError,
    Refused,
    StandInDevice,
    Unwritten,
)
from tests.runtime.graph.stand_in.recorded import recorded, replay

pytestmark = pytest.mark.usefixtures("either_mode")


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
