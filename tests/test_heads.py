"""Exit heads: kinds, sharing, and the weights handed to the exit step."""

import pytest
import torch

from eefast.heads import ExitHeads
from eefast.ops import ExitState, Gain, Keep, exit_step


@pytest.mark.parametrize(
    ("kind", "share"), [("linear", False), ("pooler", False), ("pooler", True)]
)
def test_the_exit_step_computes_the_same_logits(kind, share):
    heads = ExitHeads(kind, [16] * 3, 4, share).eval()
    hidden = torch.randn(5, 16)
    for exit in (1, 2, 3):
        state = ExitState.start(5, 4, 1)
        exit_step(
            hidden, heads.weights(exit), torch.ones(1, 3), state,
            exit=1, layer=1, keep=Keep.NEVER, gain=Gain.ONE, impl="reference",
        )  # fmt: skip
        torch.testing.assert_close(state.logits, heads(exit, hidden))


def test_poolers_are_one_shared_or_one_per_exit():
    assert len(ExitHeads("linear", [8] * 3, 2).poolers) == 0
    assert len(ExitHeads("pooler", [8] * 3, 2).poolers) == 3
    shared = ExitHeads("pooler", [8] * 3, 2, share_pooler=True)
    assert len(shared.poolers) == 1
    assert shared.weights(1).pooler_weight.data_ptr() == shared.weights(3).pooler_weight.data_ptr()


def test_weights_are_views_of_the_parameters():
    heads = ExitHeads("pooler", [8] * 2, 2)
    weights = heads.weights(2)
    with torch.no_grad():
        heads.classifiers[1].weight.fill_(3)
        heads.poolers[1].bias.fill_(4)
    assert (weights.weight == 3).all()
    assert (weights.pooler_bias == 4).all()
    assert not weights.weight.requires_grad


def test_dropout_in_training_only():
    heads, hidden = ExitHeads("linear", [64] * 1, 2, dropout=0.5), torch.randn(3, 64)
    assert not torch.equal(heads.train()(1, hidden), heads(1, hidden))
    assert torch.equal(heads.eval()(1, hidden), heads(1, hidden))


def test_bad_kinds():
    with pytest.raises(ValueError, match=r"head must be one of .*'linear', 'pooler'.*got 'deep'"):
        ExitHeads("deep", [8] * 1, 2)
    with pytest.raises(ValueError, match="share_pooler needs head='pooler'"):
        ExitHeads("linear", [8] * 1, 2, share_pooler=True)
