"""A call taken apart: its pieces compute what the call computes, each time they are made ready."""

import pytest
import torch

from eefast import compile
from eefast.policies import PCEE, Budgeted, Never
from eefast.runtime import parts
from tests.models import inputs_for, tiny_model


@pytest.mark.parametrize("exits", ["all", [2, 4]])
def test_pieces_compute_what_the_call_computes(exits):
    model = tiny_model(exits=exits)
    fast = compile(model, PCEE(1, 0.999), impl="reference")
    inputs = inputs_for(model, 3, padded=True)
    taken = parts(fast, inputs)
    assert (len(taken.layers), len(taken.exits)) == (4, model.num_exits)
    with torch.inference_mode():
        hidden, context = model.layers.start(inputs)
        logits = model(**inputs).exit_logits
        seen = 0
        for layer, ready in enumerate(taken.layers, 1):
            hidden = model.layers.layer(layer, hidden, context)
            assert all(torch.equal(ready()(), hidden) for _ in range(2))
            if layer not in model.config.exits:
                continue
            for _ in range(2):  # a step is a first one each time: none of its samples has exited
                call = taken.exits[seen]()
                call()
                state = call.func.__self__.state
                assert state.exit_layer.tolist() == [layer] * 3
                torch.testing.assert_close(state.logits, logits[seen])
            seen += 1


@pytest.mark.parametrize(("policy", "computes"), [(Never(), 1), (Budgeted(2), 1)])
def test_policies_that_skip_exits_are_refused(policy, computes):
    model = tiny_model()
    with pytest.raises(ValueError, match=f"computes {computes} of 4 exits; .* 'confidence'"):
        parts(compile(model, policy, impl="reference"), inputs_for(model, 1))


def test_inputs_and_modes_that_do_not_fit():
    model = tiny_model()
    fast = compile(model, PCEE(1, 0.5), impl="reference")
    with pytest.raises(ValueError, match="got 41 tokens per sequence; wanted 1 to 40"):
        parts(fast, inputs_for(model, 1, 41))
    model.train()
    with pytest.raises(RuntimeError, match="training mode"):
        parts(fast, inputs_for(model, 1))
