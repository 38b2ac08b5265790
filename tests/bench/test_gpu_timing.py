"""The clocks and the interleaving of bench/gpu, on a GPU that is made of numbers."""

import numpy as np
import pytest

from bench.gpu.nvml import joules_per_call
from bench.gpu.timing import Gpu, interleaved, medians, slope, summary


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


def turns(seconds, rounds, took=1.0):
    """What is called, in order, and the times."""
    log, now = [], [0.0]

    def variant(name):
        def ready(step):
            def call():
                log.append((name, step))
                now[0] += took
                return len(log)

            return call

        return ready

    times = interleaved(
        {name: variant(name) for name in "abc"},
        {"first": lambda call: call(), "second": lambda call: call()},
        (5, 7),
        seconds=seconds,
        rounds=rounds,
        now=lambda: now[0],
    )
    return log, times


def test_variants_take_turns_at_every_step():
    log, times = turns(seconds=0, rounds=(2, 9))
    # Three rounds, the first uncounted; of two clocks, two steps and three variants.
    assert len(log) == 3 * 2 * 2 * 3
    for start in range(0, len(log), 3):
        at_once = log[start : start + 3]
        assert {name for name, _ in at_once} == set("abc")
        assert len({step for _, step in at_once}) == 1
    assert len({tuple(name for name, _ in log[i : i + 3]) for i in range(0, len(log), 3)}) > 2
    assert times.keys() == {"first", "second"}
    assert {t.shape for by_name in times.values() for t in by_name.values()} == {(2, 2)}


def test_the_first_round_does_not_count():
    _, times = turns(seconds=0, rounds=(1, 9))
    assert min(t.min() for by_name in times.values() for t in by_name.values()) > 12


@pytest.mark.parametrize(
    ("seconds", "rounds", "counted"), [(0, (2, 9), 2), (30, (2, 9), 2), (50, (2, 9), 4),
                                       (10**6, (2, 9), 9)],
)  # fmt: skip
def test_rounds_end_with_the_time(seconds, rounds, counted):
    """A round takes 12 s here, and none is begun after `seconds`."""
    _, times = turns(seconds, rounds)
    assert len(times["first"]["a"]) == counted


def test_order_is_the_same_for_the_same_seed():
    assert turns(0, (2, 2))[0] == turns(0, (2, 2))[0]


def test_summary_is_the_mean_of_medians_and_the_spread_about_them():
    # Steps of 10 and 100 us; a round that is half again as slow, and one outlier.
    times = np.array([[10.0, 100.0], [10.0, 100.0], [15.0, 150.0], [10.0, 9000.0], [10.0, 100.0]])
    found = summary(times)
    assert found["us"] == 55
    assert found["calls"] == 10
    assert found["p10_us"] == pytest.approx(55)
    assert 1.5 * 55 <= found["p90_us"] < 90 * 55


def test_slope_takes_out_what_all_pay():
    more, none = slope({2: 14.0, 6: 22.0, 11: 32.0})
    assert (more, none) == (pytest.approx(2), pytest.approx(10))


def test_medians_of_calls():
    gpu = Numbers()
    calls = {"short": lambda: gpu.call(1, 1), "long": lambda: gpu.call(1, 9)}
    assert medians(calls, gpu.wall, seconds=0, rounds=(2, 2)) == {"short": 2, "long": 10}


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
