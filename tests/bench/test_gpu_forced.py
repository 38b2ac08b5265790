"""Forced exits: where they come from, and that all heads on the way are computed."""

import numpy as np
import pytest

from bench.gpu.forced import (
    POLICY,
    ForcedDepth,
    check,
    draw_depths,
    layer_shares,
    recorded_histogram,
)  # fmt: skip
from eefast import RuntimeStats, compile
from eefast.policies import Budgeted
from tests.models import inputs_for, tiny_model


def test_the_recorded_trace_is_the_demos():
    histogram = recorded_histogram()
    assert len(histogram) == 6
    assert sum(histogram) == 4000
    with pytest.raises(StopIteration):
        recorded_histogram(policy="none such")


def test_exits_stand_for_layers():
    assert layer_shares([1, 3], 2) == [0.25, 0.75]
    assert layer_shares([1, 3], 4) == [0.125, 0.125, 0.375, 0.375]
    for layers in (3, 1):
        with pytest.raises(ValueError, match="exits"):
            layer_shares([1, 3], layers)


def test_draws_follow_the_shares_and_the_seed():
    shares = [0.5, 0.0, 0.3, 0.2]
    drawn = draw_depths(shares, 1, 20_000)
    assert np.bincount(drawn, minlength=5)[1:] / 20_000 == pytest.approx(shares, abs=0.02)
    assert drawn == draw_depths(shares, 1, 20_000)
    assert drawn != draw_depths(shares, 1, 20_000, seed=1)


def test_a_batch_exits_with_its_last_sample():
    shares = [0.5, 0.0, 0.3, 0.2]
    drawn = np.array(draw_depths(shares, 8, 20_000))
    last = np.diff(np.cumsum([0, *shares]) ** 8)  # of the maximum of 8
    assert np.bincount(drawn, minlength=5)[1:] / 20_000 == pytest.approx(last, abs=0.02)


@pytest.mark.parametrize("runtime", ["direct", "sync"])
@pytest.mark.parametrize("batch", [1, 5])
def test_all_samples_exit_where_told_after_every_earlier_head(runtime, batch):
    model = tiny_model()
    fast = compile(model, POLICY, runtime=runtime)
    forced, inputs = ForcedDepth(fast), inputs_for(model, batch, padded=True)
    wanted = model(**inputs).exit_logits
    for depth in (3, 1, 4, 2, 1):
        forced.set(depth)
        fast.stats = RuntimeStats()
        out = fast(**inputs)
        assert out.exit_layer.tolist() == [depth] * batch
        assert (out.logits - wanted[depth - 1]).abs().max() < 1e-4
        (stats,) = fast.stats.calls
        assert (stats.layers_run, stats.exit_steps) == (depth, depth)
        fast.stats = None
    assert check(fast, forced, inputs, [1, 2, 3, 4]) == 0


def test_the_check_finds_what_is_not_forced():
    model = tiny_model()
    inputs = inputs_for(model, 2)
    fast = compile(model, POLICY)
    forced = ForcedDepth(fast)
    fast.policy = POLICY  # a new table, of which `forced` learns, since it asks for the live one
    assert check(fast, forced, inputs, [2]) == 0
    forced.set = lambda depth: None
    with pytest.raises(AssertionError, match=r"exit after 1, samples exited after \[2, 2\]"):
        check(fast, forced, inputs, [1])


def test_the_check_finds_heads_that_were_skipped():
    model = tiny_model()
    fast = compile(model, Budgeted(2))
    forced = ForcedDepth(fast)
    forced.set = lambda depth: None
    with pytest.raises(AssertionError, match="exit_steps=1"):
        check(fast, forced, inputs_for(model, 2), [2])
