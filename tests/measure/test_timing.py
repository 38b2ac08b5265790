"""Interleaved timing: what is called, how often, and how figures are taken (never how fast)."""

import itertools

import numpy as np
import pytest

from eefast.measure import Latency, medians, slope, summary, take_turns, time_interleaved


def test_every_variant_meets_every_input_in_every_round_and_once_before():
    seen = {"a": [], "b": []}
    variants = {name: (lambda x, calls=calls: calls.append(x)) for name, calls in seen.items()}
    result = time_interleaved(variants, [{"x": 1}, {"x": 2}], rounds=3)
    assert seen == {"a": [1, 2] * 4, "b": [1, 2] * 4}
    assert list(result) == ["a", "b"]
    assert result["a"].per_input_ms.shape == (2,)


def test_the_order_of_variants_changes():
    order = []
    variants = {name: (lambda name=name: order.append(name)) for name in "abc"}
    time_interleaved(variants, [{}] * 10, rounds=1)
    rounds = {tuple(order[i : i + 3]) for i in range(0, len(order), 3)}
    assert all(set(turn) == set("abc") for turn in rounds)
    assert len(rounds) > 1


def test_figures_of_known_times(monkeypatch):
    ticks = itertools.chain.from_iterable((0, ms * 1_000_000) for ms in (99, 99, 1, 4, 3, 4, 2, 10))
    monkeypatch.setattr("eefast.measure.timing.time.perf_counter_ns", lambda: next(ticks))
    result = time_interleaved({"a": lambda: None}, [{}, {}], rounds=3)["a"]
    assert result.per_input_ms.tolist() == [2.0, 4.0]  # the warm-up does not count
    assert result.total_ms == 6.0


def test_percentiles():
    latency = Latency(np.arange(1.0, 102.0))
    assert latency.p50_ms == pytest.approx(51)
    assert latency.p90_ms == pytest.approx(91)


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

    times = take_turns(
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
    times = iter([9, 1, 5, 3])  # the first does not count
    assert medians({"a": lambda: next(times)}, lambda call: call(), seconds=0, rounds=(3, 3)) == {
        "a": 3
    }


def test_what_is_prepared_is_prepared_before_each_call():
    log = []

    def prepare(given):
        log.append(("prepare", given["x"]))
        return lambda: log.append(("call", given["x"]))

    result = time_interleaved({}, [{"x": 1}, {"x": 2}], prepared={"a": prepare}, rounds=1)
    once = [("prepare", 1), ("call", 1), ("prepare", 2), ("call", 2)]
    assert log == once * 2
    assert result["a"].per_input_ms.shape == (2,)
