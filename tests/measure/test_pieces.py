"""Profiles: what is timed and how often, the figures of known times, and FLOPs by formula."""

import itertools

import pytest
import torch

from eefast.measure import Parts, flops, profile
from tests.models import inputs_for, tiny_model

CPU = torch.device("cpu")


def test_every_piece_is_timed_with_every_input_in_every_round():
    log = []

    def ready(name):
        log.append(("ready", name))
        return lambda: log.append(("call", name))

    def made(input):
        names = [f"{piece} {input}" for piece in ("layer 1", "layer 2", "exit 1")]
        layer_1, layer_2, exit_1 = (lambda name=name: ready(name) for name in names)
        return Parts(CPU, (layer_1, layer_2), (exit_1,))

    found = profile([made("a"), made("b")], rounds=3)
    assert found.layers.shape == (2, 2)
    assert found.exits.shape == (2, 1)
    assert len(log) == 2 * 2 * 3 * 4  # made ready and called; inputs, pieces, a round to warm up
    assert all(a == ("ready", b[1]) for a, b in zip(log[::2], log[1::2], strict=True))
    rounds = [[name for _, name in log[start : start + 12 : 2]] for start in range(0, 48, 12)]
    assert all(sorted(order) == sorted(rounds[0]) for order in rounds)
    assert len(set(map(tuple, rounds))) > 1


def test_figures_are_medians_in_milliseconds(monkeypatch):
    """Pieces that take 2 and 5 ms, 9 and 50 ms with the second input; every ninth call is slow."""
    now, calls = [0], itertools.count()

    def piece(ms):
        def call():
            now[0] += int(ms * 1e6) * (10 if next(calls) % 9 == 0 else 1)

        return lambda: call

    monkeypatch.setattr("eefast.measure.pieces.time.perf_counter_ns", lambda: now[0])
    parts = [Parts(CPU, (piece(2),), (piece(5),)), Parts(CPU, (piece(9),), (piece(50),))]
    found = profile(parts, rounds=9)
    assert found.layers.tolist() == [[2.0], [9.0]]
    assert found.exits.tolist() == [[5.0], [50.0]]


def test_nothing_to_time_is_refused():
    with pytest.raises(ValueError, match="parts must hold one input or more, got none"):
        profile([])
    with pytest.raises(ValueError, match="rounds must be 1 or more, got 0"):
        profile([Parts(CPU, (), ())], rounds=0)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("head", ["linear", "pooler"])
def test_flops_are_those_of_the_matrix_products(attention, head):
    width, inner, classes = 32, 64, 3
    model = tiny_model(classes, exits=[2, 4], head=head)
    model.set_attn_implementation(attention)
    for samples, tokens in ((1, 5), (2, 12)):
        linears = 4 * width * width + 2 * width * inner
        a_layer = 2 * samples * (tokens * linears + 2 * tokens * tokens * width)
        a_head = 2 * samples * width * (classes + (width if head == "pooler" else 0))
        found = flops(model, inputs_for(model, samples, tokens))
        assert found == ([a_layer] * 4, [a_head] * 2)


def test_flops_of_inputs_that_do_not_fit():
    model = tiny_model()
    with pytest.raises(ValueError, match="got 41 tokens per sequence; wanted 1 to 40"):
        flops(model, inputs_for(model, 1, 41))
