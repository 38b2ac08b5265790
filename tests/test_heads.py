"""Exit heads: kinds, sharing, the scorer, and the weights handed to the exit step."""

import pytest
import torch

from eefast.heads import ExitHeads
from eefast.ops import ExitState, Gain, Keep, exit_step


@pytest.mark.parametrize(
    ("kind", "share"),
    [
        ("linear", {}),
        ("pooler", {}),
        ("pooler", dict(share_pooler=True)),
        ("linear", dict(share_head=True)),
        ("pooler", dict(share_head=True)),
        ("linear", dict(cascade=True)),
        ("pooler", dict(cascade=True, share_pooler=True)),
    ],
)
def test_the_exit_step_computes_the_same_logits(kind, share):
    heads = ExitHeads(kind, [16] * 3, 4, **share).eval()
    hidden, logits = torch.randn(5, 16), None
    for exit in (1, 2, 3):
        state = ExitState.start(5, 4, 1)
        if logits is not None:
            state.logits.copy_(logits)
        exit_step(
            hidden, heads.weights(exit), torch.ones(1, 3), state,
            exit=1, layer=1, keep=Keep.NEVER, gain=Gain.ONE, impl="reference",
        )  # fmt: skip
        logits, score = heads(exit, hidden, logits)
        torch.testing.assert_close(state.logits, logits)
        assert score is None


def test_heads_in_a_cascade_read_the_one_before_and_teach_it_nothing():
    heads, hidden = ExitHeads("linear", [8] * 4, 2, cascade=True, dropout=0.0), torch.randn(4, 5, 8)
    z = []
    for exit in (1, 2, 3, 4):
        z.append(heads(exit, hidden[exit - 1], z[-1] if z else None)[0])
    plain = [head(x) for head, x in zip(heads.classifiers, hidden, strict=True)]
    u = [cascade.weight for cascade in heads.cascades]
    for got, wanted in zip(z, [0, z[0] @ u[0].T, z[1] @ u[1].T, 0], strict=True):
        torch.testing.assert_close(got - plain.pop(0), torch.zeros(5, 2) + wanted)
    z[2].sum().backward()
    learn = {name for name, parameter in heads.named_parameters() if parameter.grad is not None}
    assert learn == {"classifiers.2.weight", "classifiers.2.bias", "cascades.1.weight"}
    assert [len(heads.parameters_of(exit)) for exit in (1, 2, 3, 4)] == [2, 3, 3, 2]
    # The first leaves what it gives; the last is no part of it.
    assert [heads.weights(exit).cascade is None for exit in (1, 2, 3, 4)] == [0, 0, 0, 1]
    heads.start_from(2, None, torch.nn.Linear(8, 2))
    assert (heads.cascades[0].weight == 0).all()
    with pytest.raises(ValueError, match="before: exit 3 reads the logits of the exit before"):
        heads(3, hidden[2])


def test_poolers_are_one_shared_or_one_per_exit():
    assert len(ExitHeads("linear", [8] * 3, 2).poolers) == 0
    assert len(ExitHeads("pooler", [8] * 3, 2).poolers) == 3
    shared = ExitHeads("pooler", [8] * 3, 2, share_pooler=True)
    assert len(shared.poolers) == 1
    assert shared.weights(1).pooler_weight.data_ptr() == shared.weights(3).pooler_weight.data_ptr()


@pytest.mark.parametrize("kind", ["linear", "pooler"])
def test_one_head_for_all_exits(kind):
    heads, hidden = ExitHeads(kind, [8] * 3, 2, share_head=True).eval(), torch.randn(4, 8)
    assert len(heads.classifiers) == 1
    assert len(heads.poolers) == (kind == "pooler")
    for first, last in zip(heads.weights(1), heads.weights(3), strict=True):
        assert first is last is None or first.data_ptr() == last.data_ptr()
    trained = torch.nn.Linear(8, 2)
    heads.start_from(3, None, trained)
    assert torch.equal(heads.classifiers[0].weight, trained.weight)
    assert torch.equal(heads(1, hidden)[0], heads(3, hidden)[0])


def test_weights_are_views_of_the_parameters():
    heads = ExitHeads("pooler", [8] * 2, 2, scorer_row=True)
    weights = heads.weights(2)
    with torch.no_grad():
        heads.classifiers[1].weight.fill_(3)
        heads.poolers[1].bias.fill_(4)
    assert (weights.weight == 3).all()
    assert (weights.pooler_bias == 4).all()
    assert not weights.weight.requires_grad


@pytest.mark.parametrize("kind", ["linear", "pooler"])
def test_the_scorer_is_a_last_row_that_reads_what_the_classifier_reads(kind):
    heads, hidden = ExitHeads(kind, [16] * 2, 3, scorer_row=True).eval(), torch.randn(5, 16)
    for exit in (1, 2):
        pooler_weight, pooler_bias, weight, bias, _ = heads.weights(exit, scorer_row=True)
        read = hidden
        if kind == "pooler":
            read = torch.tanh(hidden @ pooler_weight.T + pooler_bias)
        rows = read @ weight.T + bias
        logits, score = heads(exit, hidden)
        torch.testing.assert_close(rows[:, :3], logits)
        torch.testing.assert_close(rows[:, 3].sigmoid(), score)
        assert not weight.requires_grad
        assert heads.weights(exit).weight.shape == (3, 16)  # a policy without scorer pays nothing
    first, second = (heads.weights(exit, scorer_row=True).weight[3] for exit in (1, 2))
    assert torch.equal(first, second)  # one scorer for all exits


def test_scores_are_float32_in_low_precision():
    heads = ExitHeads("linear", [8] * 1, 2, scorer_row=True).bfloat16()
    logits, score = heads(1, torch.randn(3, 8).bfloat16())
    assert (logits.dtype, score.dtype) == (torch.bfloat16, torch.float32)
    assert heads.weights(1, scorer_row=True).weight.dtype == torch.bfloat16


def test_dropout_in_training_only():
    heads, hidden = ExitHeads("linear", [64], 2, dropout=0.5), torch.randn(3, 64)
    assert not torch.equal(heads.train()(1, hidden)[0], heads(1, hidden)[0])
    assert torch.equal(heads.eval()(1, hidden)[0], heads(1, hidden)[0])


def test_bad_kinds():
    with pytest.raises(ValueError, match=r"head must be one of .*'linear', 'pooler'.*got 'deep'"):
        ExitHeads("deep", [8] * 1, 2)
    with pytest.raises(ValueError, match="share_pooler needs head='pooler'"):
        ExitHeads("linear", [8], 2, share_pooler=True)
    for option in ("scorer_row", "share_head"):
        with pytest.raises(ValueError, match=f"{option} needs exits of one width, got .*8, 4"):
            ExitHeads("linear", [8, 4], 2, **{option: True})
    with pytest.raises(ValueError, match="cascade needs a head for each exit, got share_head=True"):
        ExitHeads("linear", [8, 8], 2, cascade=True, share_head=True)
    with pytest.raises(ValueError, match="heads have no scorer"):
        ExitHeads("linear", [8], 2).weights(1, scorer_row=True)
