"""A right driver on the stand-in answers as a loop over layers, for every family."""

import pytest
import torch

from eefast import attach_exits
from eefast.policies import Confidence, Never
from tests.backbones.families import CAPTURED, build, tokens
from tests.models import tiny_model
from tests.runtime.graph.stand_in.answers import MIXED, SAMPLES, assert_same, model, samples, wanted
from tests.runtime.graph.stand_in.driver import Driver, eager


def test_samples_exit_at_every_exit():
    assert {state.exit_layer.item() for state in wanted()} == {1, 2, 3, 4}


@pytest.mark.parametrize("watched", [True, False])
def test_the_right_driver_answers_as_the_eager_loop(watched):
    driver = Driver(model(), MIXED, samples()[0])
    graph = driver.capture.graph
    assert (graph.if_nodes, graph.depth) == (3, 3)
    for inputs, state in zip(samples(), wanted(), strict=True):
        if watched:
            with driver.device.watching():
                got = driver(inputs)
        else:
            got = driver(inputs)
        assert_same(got, state)
        assert graph.bodies_run == state.exit_layer.item() - 1
    assert driver.device.replays == graph.replays == SAMPLES


def family_model(name, attention):
    made = attach_exits(build(name, attention)).eval()
    with torch.no_grad():
        for classifier in made.heads.classifiers:
            classifier.weight.normal_(0, 0.3)
    return made


@pytest.mark.parametrize(
    ("name", "attention"), [pair for *pair, dtype in CAPTURED if dtype == torch.float32]
)
def test_every_backbone_can_be_captured(name, attention):
    """In bfloat16 too by the runtime itself: tests/runtime/graph/test_runtime.py."""
    made = family_model(name, attention)
    batches = [tokens(padding="right"), tokens(padding="left")]
    for policy in (Never(), Confidence(0.55)):
        driver = Driver(made, policy, batches[0])
        for inputs in [*batches, batches[0]]:
            assert_same(driver(inputs), eager(made, policy, inputs))


@pytest.mark.parametrize("wrapped", [True, False])
def test_compiled_layers_can_be_captured(wrapped):
    made = tiny_model()
    states = wanted()
    layers = made.layers.model.encoder.layer
    for number in range(len(layers)):
        if wrapped:
            layers[number] = torch.compile(layers[number], backend="aot_eager")
        else:
            layers[number].compile(backend="aot_eager")
    driver = Driver(made, MIXED, samples()[0])
    for inputs, state in zip(samples(), states, strict=True):
        assert_same(driver(inputs), state)
