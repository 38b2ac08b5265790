"""The clocks and the energy meter of bench/gpu, on a GPU that is made of numbers."""

import pytest

from bench.gpu.nvml import joules_per_call
from bench.gpu.timing import Gpu


class Numbers(Gpu):
    """A host and a GPU with a time each; a call costs the host `host` us and the GPU `gpu` us."""

    def __init__(self):
        self.host = self.gpu = 0.0

    def call(self, host, gpu):
        self.host += host
        self.gpu = max(self.gpu, self.host) + gpu

    def now_us(self):
        return self.host

    def synchronize(self):
        self.host = max(self.host, self.gpu)

    def hold(self, us):
        self.call(0, us)

    def event(self):
        return Event(self)


class Event:
    def __init__(self, numbers):
        self.numbers = numbers

    def record(self):
        self.at = max(self.numbers.gpu, self.numbers.host)

    def synchronize(self):
        self.numbers.synchronize()

    def elapsed_time(self, end):
        return (end.at - self.at) / 1e3


@pytest.mark.parametrize(
    ("clock", "us"),
    # Two launches of 10 us each, whose kernels take 4: the GPU waits for the second launch.
    [("wall", 24), ("enqueue", 20), ("on_device", 24), ("queued", 8)],
)
def test_what_each_clock_reads(clock, us):
    gpu = Numbers()
    read = gpu.queued(100) if clock == "queued" else getattr(gpu, clock)

    def call():
        gpu.call(10, 4)
        gpu.call(10, 4)

    for _ in range(3):
        assert read(call) == pytest.approx(us)


class Board:
    """50 W; its counter moves every 0.1 s; a run of 7 calls takes 0.03 s."""

    def __init__(self, moves=True):
        self.now, self.moves = 100.0, moves

    def energy(self):
        return int(self.now * 10 + 1e-9) * 5000 if self.moves else 123

    def run(self):
        self.now += 0.03
        return 7


def test_energy_is_taken_between_moves_of_the_counter():
    board = Board()
    found = joules_per_call(board.energy, board.run, 1.0, now=lambda: board.now)
    assert found["w"] == pytest.approx(50, rel=0.05)
    assert found["j"] == pytest.approx(50 * 0.03 / 7, rel=0.05)
    assert 1.0 <= found["s"] < 1.3


def test_energy_that_cannot_be_read():
    still = Board(moves=False)
    assert joules_per_call(still.energy, still.run, 1.0, now=lambda: still.now) is None
    assert still.now < 105  # it gives up
    assert joules_per_call(lambda: None, still.run, 1.0) is None
