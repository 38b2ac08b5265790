"""A compiled model whose graphs are captured on CPU tensors, and what it should answer."""

import torch

from eefast import compile
from eefast.runtime.graph import GraphRuntime
from tests.runtime.graph.stand_in import StandInDevice
from tests.runtime.graph.stand_in.driver import eager
from tests.runtime.test_direct import TOLERANCE


def compiled(model, policy, **options):
    """The model with its graph runtime, and the device that stands in."""
    fast, device = compile(model, policy), StandInDevice()
    fast._runtime = GraphRuntime(model.layers, model.num_classes, "auto", device=device, **options)
    return fast, device


def padded_reference(model, policy, length, padding, **inputs):
    """The state after a loop over layers and exits of the inputs padded to `length`.

    The same operators on the same shapes as in a graph, so the same numbers to the last bit.
    """
    given = next(iter(inputs.values()))  # (B, T), or embedded
    default = {"attention_mask": torch.ones(given.shape[:2])}
    if "token_type_ids" in model.layers.takes:
        default["token_type_ids"] = torch.zeros(given.shape[:2], dtype=torch.int64)

    def pad(values, fill):
        samples, tokens = values.shape[:2]
        whole = values.new_full((samples, length, *values.shape[2:]), fill)
        whole[:, :tokens] = values
        return whole

    padded = {
        name: pad(values, padding if name == "input_ids" else 0)
        for name, values in {**default, **inputs}.items()
    }
    return eager(model, policy, padded)


def same(out, wanted):
    """To the last bit."""
    for name in ("exit_layer", "prediction", "score", "logits"):
        assert torch.equal(getattr(out, name), getattr(wanted, name)), name


def close(out, wanted):
    """Up to another order of sums, because of the mask and the padding."""
    assert torch.equal(out.exit_layer, wanted.exit_layer)
    assert torch.equal(out.prediction, wanted.prediction)
    torch.testing.assert_close(out.logits, wanted.logits, **TOLERANCE)
    torch.testing.assert_close(out.score, wanted.score, **TOLERANCE)
