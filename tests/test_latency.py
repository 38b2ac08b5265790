"""Interleaved timing: what is called, how often, and how figures are taken (never how fast)."""

import itertools

import numpy as np
import pytest

from eefast.latency import Latency, time_interleaved


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
    monkeypatch.setattr("eefast.latency.time.perf_counter_ns", lambda: next(ticks))
    result = time_interleaved({"a": lambda: None}, [{}, {}], rounds=3)["a"]
    assert result.per_input_ms.tolist() == [2.0, 4.0]  # the warm-up does not count
    assert result.total_ms == 6.0


def test_percentiles():
    latency = Latency(np.arange(1.0, 102.0))
    assert latency.p50_ms == pytest.approx(51)
    assert latency.p90_ms == pytest.approx(91)
