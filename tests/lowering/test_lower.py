"""The seam between a model's own layers and faster ones: compiled models drive what it gives."""

from dataclasses import dataclass

import pytest
import torch

from eefast import compile
from eefast.backbones import Backbone
from eefast.lowering import lower
from eefast.policies import Confidence
from tests.models import inputs_for, tiny_model

MIXED = Confidence(0.6)


def test_a_backbone_is_driven_as_it_is():
    layers = tiny_model().layers
    assert lower(layers) is layers


@dataclass
class Doubled:
    """A context of another kind than the wrapped backbone's."""

    inner: object

    def select(self, rows):
        return Doubled(self.inner.select(rows))


class Wrapping(Backbone):
    """Computes what another backbone computes, on hidden states of twice the size."""

    def __init__(self, inner):
        self.takes, self.main_inputs, self.absent = inner.takes, inner.main_inputs, inner.absent
        super().__init__(inner.model, inner.widths, inner.costs)
        self.inner = inner
        self.ran = []

    def start(self, inputs):
        hidden, context = self.inner.start(inputs)
        return 2 * hidden, Doubled(context)

    def layer(self, index, hidden, context):
        self.ran.append((index, len(hidden)))
        return 2 * self.inner.layer(index, hidden / 2, context.inner)

    def readout(self, index, hidden, context):
        return self.inner.readout(index, hidden / 2, context.inner)


@pytest.fixture
def lowered(monkeypatch):
    """What was lowered since, in order."""
    made = []

    def wrapping(backbone):
        made.append(Wrapping(backbone))
        return made[-1]

    monkeypatch.setattr("eefast.runtime.compiled.lower", wrapping)
    return made


@pytest.mark.parametrize("runtime", ["direct", "sync"])
def test_a_lowered_backbone_answers_as_the_model_s_own(lowered, runtime, monkeypatch):
    model = tiny_model()
    inputs = inputs_for(model, 24, padded=True)
    out = compile(model, MIXED, runtime=runtime)(**inputs)
    (layers,) = lowered
    assert [index for index, _ in layers.ran] == [1, 2, 3, 4]
    if runtime == "direct":  # rows that have exited are evicted from its context, too
        assert layers.ran == [(i, int((out.exit_layer >= i).sum())) for i in range(1, 5)]
    monkeypatch.undo()
    wanted = compile(model, MIXED, runtime=runtime)(**inputs)
    assert set(wanted.exit_layer.tolist()) == {1, 2, 3, 4}
    for name in wanted:  # times and by 2 is exact
        assert torch.equal(out[name], wanted[name]), name


def test_a_move_lowers_anew(lowered):
    model = tiny_model()
    fast = compile(model, MIXED)
    fast.to(torch.bfloat16)
    fast(**inputs_for(model, 2))
    assert [bool(layers.ran) for layers in lowered] == [False, True]
