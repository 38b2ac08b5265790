"""`Driver`: the smallest graph runtime that is right, in pieces that a test can get wrong."""

import torch

from eefast.multi_exit import MultiExitModel
from eefast.ops import ExitState, implementation
from eefast.policies import Policy
from eefast.runtime.batch import Batches
from tests.models import plan_for
from tests.runtime.graph.stand_in import StandInDevice


@torch.inference_mode()
def eager(model: MultiExitModel, policy: Policy, inputs: dict) -> ExitState:
    """The same call, layer by layer, with a question after every exit."""
    plan = plan_for(policy, model)
    state = ExitState.start(len(inputs["attention_mask"]), model.num_classes, len(plan.table))
    batch = Batches(model.layers, model.num_classes, "cpp").of(plan, plan.table, state)
    batch.start(inputs)
    for stage in plan.stages:
        batch.run(stage)
        if not state.running[stage.exit - 1]:
            break
    batch.finish()
    return state


class Driver:
    """One graph for inputs of one shape: all that comes after an exit is in that exit's IF node."""

    def __init__(self, model, policy, inputs, device=None, impl="cpp"):
        self.model, self.plan = model, plan_for(policy, model)
        self.device = device or StandInDevice()
        self.exit_step = implementation(impl, "cpu", model.dtype)
        with torch.inference_mode():
            self.static = {name: torch.zeros_like(value) for name, value in inputs.items()}
            samples = len(inputs["input_ids"])
            self.state = ExitState.start(samples, model.num_classes, len(self.plan.table))
            self.capture = self.device.capture()
            with self.device.warming_up():
                self.model.layers.start(self.static)
            with self.capture.recording():
                self.record()

    def record(self):
        self.reset()
        hidden, layer_inputs = self.embed()
        self.from_stage(0, hidden, layer_inputs)

    def reset(self):
        self.state.score.zero_()
        self.state.prediction.fill_(-1)
        for cleared in (self.state.exit_layer, self.state.logits, self.state.running):
            cleared.zero_()

    def embed(self):
        return self.model.layers.start(self.static)

    def from_stage(self, number, hidden, layer_inputs):
        hidden = self.layers(number, hidden, layer_inputs)
        self.exit(number, hidden)
        if number + 1 < len(self.plan.stages):
            with self.capture.only_if(self.flag(number)):
                self.from_stage(number + 1, hidden, layer_inputs)

    def layers(self, number, hidden, layer_inputs):
        for layer in self.plan.stages[number].layers:
            hidden = self.model.layers.layer(layer, hidden, layer_inputs)
        self.context = layer_inputs  # which the next exit's readout needs
        return hidden

    def exit(self, number, hidden):
        stage = self.plan.stages[number]
        vectors = self.model.layers.readout(stage.layers.stop - 1, hidden, self.context)
        self.context = None
        self.exit_step(
            *vectors, *stage.head, stage.scorer, self.plan.table, None, stage.step, *self.state
        )

    def flag(self, number):
        return self.state.running[self.plan.stages[number].exit - 1]

    @torch.inference_mode()
    def __call__(self, inputs):
        with self.capture.turn():
            self.fill(inputs)
            self.capture.replay()
            return self.result()

    def fill(self, inputs):
        for name, value in inputs.items():
            self.static[name].copy_(value)

    def result(self):
        return ExitState(*(part if part is None else part.clone() for part in self.state))
