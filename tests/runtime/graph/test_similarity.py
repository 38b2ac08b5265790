"""Exits by similarity in a graph."""

from dataclasses import dataclass

from eefast.policies import Columns, Gain, Keep, MuE, Policy
from tests.models import inputs_for, tiny_model
from tests.runtime.graph.on_stand_in import compiled, padded_reference, same
from tests.runtime.test_similarity import by_the_paper, threshold_for


@dataclass(frozen=True)
class AtTheSecond(Policy):
    """In all but what decides its plan is MuE's: the same exits, the same head, strict."""

    name = "test-at-the-second"
    keep, gain, strict = Keep.NEVER, Gain.ONE, True

    def columns(self, num_exits):
        return Columns(thresholds=[1.0, 0.5, *[1.0] * (num_exits - 2)])


def test_the_same_to_the_last_bit_and_thresholds_are_read_anew():
    model = tiny_model(share_head=True, head="pooler")
    inputs = inputs_for(model, 24, length=16, padded=True)
    theta = threshold_for(model, inputs)
    fast, device = compiled(model, MuE(theta), length_buckets=[16])
    assert fast(**inputs).exit_layer.tolist() == by_the_paper(model, theta, inputs)[0].tolist()
    last_off = MuE([theta, 2.0, theta, theta])
    for policy in (MuE(theta), MuE(2.0), last_off, MuE(-2.0)):
        fast.policy = policy
        same(fast(**inputs), padded_reference(model, policy, 16, 0, **inputs))
    assert device.opened == 1
    for policy in (AtTheSecond(), MuE(theta)):  # each captured for itself
        fast.policy = policy
        same(fast(**inputs), padded_reference(model, policy, 16, 0, **inputs))
    assert device.opened == 2
