"""Exits by similarity in a graph."""

from eefast.policies import Confidence, MuE
from tests.models import inputs_for, tiny_model
from tests.runtime.graph.on_stand_in import compiled, padded_reference, same
from tests.runtime.test_similarity import by_the_paper, threshold_for


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
    for policy in (Confidence(0.6), MuE(theta)):  # each captured for itself
        fast.policy = policy
        same(fast(**inputs), padded_reference(model, policy, 16, 0, **inputs))
    assert device.opened == 2
