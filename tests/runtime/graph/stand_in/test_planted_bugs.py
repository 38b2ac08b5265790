"""Wrong drivers, which the stand-in for CUDA graphs has to catch."""

from contextlib import suppress

import pytest
import torch

from eefast.backbones import hides_nothing
from tests.runtime.graph.stand_in import Refused, Stale, Unwritten
from tests.runtime.graph.stand_in.answers import (
    MIXED,
    model,
    same,
    samples,
    wanted,
)
from tests.runtime.graph.stand_in.driver import Driver

# What asks the device


class ReadsAnItem(Driver):
    def exit(self, number, hidden):
        super().exit(number, hidden)
        self.flag(number).item()


class DecidesOnTheHost(Driver):
    def from_stage(self, number, hidden, layer_inputs):
        hidden = self.layers(number, hidden, layer_inputs)
        self.exit(number, hidden)
        if number + 1 < len(self.plan.stages) and self.flag(number):
            self.from_stage(number + 1, hidden, layer_inputs)


class LooksThroughNumpy(Driver):
    def exit(self, number, hidden):
        super().exit(number, hidden)
        self.state.running.numpy()[number]


class FindsWhoStays(Driver):
    def layers(self, number, hidden, layer_inputs):
        self.state.exit_layer.eq(0).nonzero()
        return super().layers(number, hidden, layer_inputs)


class TakesWhoStaysByMask(Driver):
    def layers(self, number, hidden, layer_inputs):
        hidden = hidden[self.state.exit_layer == 0]
        return super().layers(number, hidden, layer_inputs)


class LooksAtTheMask(Driver):
    def embed(self):
        hides_nothing(self.static["attention_mask"])  # as on the CPU, to drop the mask
        return super().embed()


class Swallows(Driver):
    def exit(self, number, hidden):
        super().exit(number, hidden)
        with suppress(Refused):
            bool(self.flag(number))


@pytest.mark.parametrize(
    ("driver", "why"),
    [
        (ReadsAnItem, "item: the host reads a value"),
        (DecidesOnTheHost, "__bool__: the host reads a value"),
        (LooksThroughNumpy, "numpy: the host reads a value"),
        (FindsWhoStays, "aten.nonzero.default: the host reads how many"),
        (TakesWhoStaysByMask, "aten.index.Tensor with a mask"),
        (LooksAtTheMask, "__bool__: the host reads a value"),
        (Swallows, "capture_end: the capture became invalid before .__bool__"),
    ],
)
def test_a_driver_that_asks_the_device_is_refused(driver, why):
    with pytest.raises(Refused, match=why):
        driver(model(), MIXED, samples()[0])


def test_an_exit_step_that_selects_by_mask_is_refused():
    with pytest.raises(Refused, match=r"aten.index.Tensor with a mask"):
        Driver(model(), MIXED, samples()[0], impl="reference")


# Wrong nesting


class ClosesANodeTooEarly(Driver):
    """Layer 3 and what follows come after layer 2's node, not inside it."""

    def from_stage(self, number, hidden, layer_inputs):
        if number != 1:
            return super().from_stage(number, hidden, layer_inputs)
        self.after_two = self.layers(number, hidden, layer_inputs)
        self.exit(number, self.after_two)

    def record(self):
        self.reset()
        hidden, layer_inputs = self.embed()
        self.from_stage(0, hidden, layer_inputs)
        with self.capture.only_if(self.flag(0)):
            pass
        super().from_stage(2, self.after_two, layer_inputs)


class NodesSideBySide(Driver):
    """Every node on the top level, each under its own exit's flag: right, and must not be refused.

    A flag is cleared at the start and only an exit that was met sets it.
    """

    def from_stage(self, number, hidden, layer_inputs):
        hidden = self.layers(number, hidden, layer_inputs)
        self.exit(number, hidden)
        for after in range(1, len(self.plan.stages)):
            with self.capture.only_if(self.flag(after - 1)):
                hidden = self.layers(after, hidden, layer_inputs)
                self.exit(after, hidden)


class FlagOfTheNextExit(Driver):
    """Which no call has met yet."""

    def flag(self, number):
        return super().flag(number + 1)


class SideBySideUnderTheFirstFlag(NodesSideBySide):
    def flag(self, number):
        return super().flag(0)


class SkipsTheNodeOfALayer(Driver):
    """Layer 2's work is in the node, its exit step after it."""

    def from_stage(self, number, hidden, layer_inputs):
        hidden = self.layers(number, hidden, layer_inputs)
        self.exit(number, hidden)
        if number + 1 < len(self.plan.stages):
            with self.capture.only_if(self.flag(number)):
                hidden = self.layers(number + 1, hidden, layer_inputs)
            self.exit(number + 1, hidden)


class BodyOutsideItsNode(Driver):
    """Right answers, because an exit step does not touch exited samples; but no layer is saved."""

    def from_stage(self, number, hidden, layer_inputs):
        for each in range(len(self.plan.stages)):
            hidden = self.layers(each, hidden, layer_inputs)
            self.exit(each, hidden)
            if each + 1 < len(self.plan.stages):
                with self.capture.only_if(self.flag(each)):
                    pass


def run(driver):
    """What the driver gives for all samples, one after the other."""
    driver = driver(model(), MIXED, samples()[0])
    return driver, [driver(inputs) for inputs in samples()]


@pytest.mark.parametrize("driver", [ClosesANodeTooEarly, SkipsTheNodeOfALayer])
def test_hidden_states_that_a_skipped_body_owes_are_missed(driver):
    with pytest.raises(Unwritten, match="nothing has written it on the path taken"):
        run(driver)


def test_nodes_side_by_side_are_as_good():
    driver, got = run(NodesSideBySide)
    assert all(map(same, got, wanted()))
    assert (driver.capture.graph.if_nodes, driver.capture.graph.depth) == (3, 1)


def test_the_flag_of_the_wrong_exit_gives_other_answers():
    _, got = run(FlagOfTheNextExit)
    assert not all(map(same, got, wanted()))


@pytest.mark.parametrize("driver", [SideBySideUnderTheFirstFlag, BodyOutsideItsNode])
def test_layers_run_for_nothing_are_counted(driver):
    """Nothing else shows it: an exit step does not touch exited samples."""
    right, wrong = (each(model(), MIXED, samples()[0]) for each in (Driver, driver))
    more = set()
    for inputs, state in zip(samples(), wanted(), strict=True):
        assert same(right(inputs), state)
        assert same(wrong(inputs), state)
        if state.exit_layer.item() < 4:
            ran = (each.capture.graph.operators_run for each in (right, wrong))
            more.add(next(ran) < next(ran))
    assert True in more


# Stale buffers and state


class UsesTheFirstCallsInput(Driver):
    """The tensor that the capture was made with is read, not the buffer that calls fill."""

    def __init__(self, model, policy, inputs):
        self.first = {name: value.clone() for name, value in inputs.items()}
        super().__init__(model, policy, inputs)

    def embed(self):
        return self.model.layers.start(self.first)


class ForgetsTheFirstCallsInput(UsesTheFirstCallsInput):
    def __init__(self, model, policy, inputs):
        super().__init__(model, policy, inputs)
        del self.first


class MakesTheMaskBefore(Driver):
    """The layers' mask is computed before the capture, and nothing keeps it."""

    def __init__(self, model, policy, inputs):
        with torch.inference_mode():
            self.before = model.layers.start(inputs)[1]
        super().__init__(model, policy, inputs)
        del self.before

    def embed(self):
        return super().embed()[0], self.before


class ForgetsToReset(Driver):
    def reset(self):
        pass


class ResetsAllButTheFlags(Driver):
    def reset(self):
        for part in (self.state.score, self.state.exit_layer):
            part.zero_()


class FillsNothing(Driver):
    def fill(self, inputs):
        pass


class KeepsStateInTheGraph(Driver):
    """State that is made by the capture and set up by the host alone."""

    def record(self):
        self.state = self.state._replace(score=torch.empty_like(self.state.score))
        self.state.score.zero_()
        super().record()

    def reset(self):
        for part in self.state[1:5]:
            part.zero_()


class StateWithoutAStart(Driver):
    def record(self):
        self.state = self.state._replace(score=torch.empty_like(self.state.score))
        super().record()

    def reset(self):
        for part in self.state[1:5]:
            part.zero_()


@pytest.mark.parametrize(
    "driver", [UsesTheFirstCallsInput, ForgetsToReset, ResetsAllButTheFlags, FillsNothing]
)
def test_a_call_that_depends_on_earlier_ones_gives_other_answers(driver):
    _, got = run(driver)
    assert not all(map(same, got, wanted()))


@pytest.mark.parametrize("driver", [ForgetsTheFirstCallsInput, MakesTheMaskBefore])
def test_a_buffer_that_was_freed_is_missed(driver):
    with pytest.raises(Stale, match="stale buffer"):
        run(driver)


def test_state_that_is_not_set_up_is_missed():
    run(KeepsStateInTheGraph)
    with pytest.raises(Unwritten, match=r"eefast.exit_step.cpp reads"):
        run(StateWithoutAStart)


# Results


class KeepsEveryState(Driver):
    """Gives the hidden states after every layer, of skipped ones too."""

    def layers(self, number, hidden, layer_inputs):
        hidden = super().layers(number, hidden, layer_inputs)
        self.hidden = getattr(self, "hidden", [])
        self.hidden.append(hidden)
        return hidden


def test_hidden_states_of_a_skipped_layer_cannot_be_read():
    driver = KeepsEveryState(model(), MIXED, samples()[0])
    for inputs, state in zip(samples(), wanted(), strict=True):
        driver(inputs)
        met = state.exit_layer.item()
        with driver.device.watching():
            for hidden in driver.hidden[:met]:
                assert not hidden.clone().isnan().any()
            for hidden in driver.hidden[met:]:
                with pytest.raises(Unwritten):
                    hidden.clone()
        assert all(hidden.isnan().all() for hidden in driver.hidden[met:])


def test_a_call_after_close_is_an_error():
    driver = Driver(model(), MIXED, samples()[0])
    driver(samples()[0])
    driver.capture.close()
    with pytest.raises(Stale, match="turn: the capture is closed"):
        driver(samples()[0])
    assert driver.device.reserved_bytes == 0
