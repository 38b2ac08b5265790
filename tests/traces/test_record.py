"""Recording: what a model at full depth gives, in order, and what else is kept of it."""

import pytest
import torch

from eefast import compile, record_trace, simulate
from eefast.policies import BEEM, BERxiT, Budgeted, Confidence
from tests.models import inputs_for, tiny_model


@pytest.mark.parametrize("options", [dict(exits=[2, 4]), dict(cascade=True)])
def test_record_trace_keeps_every_exit_in_order(options):
    model = tiny_model(**options).train()
    batches = [
        {**inputs_for(model, 3, seed=seed), "labels": torch.tensor([0, 1, 2])} for seed in range(2)
    ]
    trace = record_trace(model, batches)
    assert trace.exit_layers == tuple(options.get("exits", (1, 2, 3, 4)))
    assert trace.labels.tolist() == [0, 1, 2, 0, 1, 2]
    model.eval()
    for i, batch in enumerate(batches):
        wanted = torch.stack(model(**{k: v for k, v in batch.items() if k != "labels"}).exit_logits)
        torch.testing.assert_close(trace.logits[:, 3 * i : 3 * i + 3], wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("policy", [Confidence(0.6), BEEM.cost(4, 0.6), BERxiT(0.5), Budgeted(3)])
def test_what_is_recorded_is_what_the_compiled_model_decides_by(dtype, policy):
    model = tiny_model(scorer_row=True, head="pooler", cascade=True).to(dtype)
    inputs = inputs_for(model, 500, padded=True)
    batch = {**inputs, "labels": torch.zeros(500, dtype=torch.int64)}
    trace = record_trace(model, [batch], keep=["scores"])
    wanted = simulate(policy, trace)
    out = compile(model, policy)(**inputs)
    assert torch.equal(out.exit_layer, wanted.exit_layer.int())
    assert torch.equal(out.logits, trace.logits[wanted.exit - 1, torch.arange(500)])


def test_no_autocast_changes_what_is_recorded():
    model = tiny_model()
    batch = {**inputs_for(model, 3), "labels": torch.tensor([0, 1, 2])}
    wanted = record_trace(model, [batch]).logits
    model.forward = torch.autocast("cpu", torch.bfloat16)(model.forward)  # as Trainer leaves it
    assert torch.equal(record_trace(model, [batch]).logits, wanted)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(record_trace(model, [batch]).logits, wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_precisions_that_the_default_exit_step_does_not_take_are_recorded(dtype):
    model = tiny_model()
    batch = {**inputs_for(model, 3), "labels": torch.tensor([0, 1, 2])}
    wanted = record_trace(model, [batch]).logits
    trace = record_trace(model.to(dtype), [batch])
    assert trace.logits.dtype == torch.float32
    torch.testing.assert_close(trace.logits, wanted, rtol=0.02, atol=0.02)


def test_every_module_is_put_back_into_its_mode():
    model = tiny_model().train()
    model.heads.eval()
    modes = [module.training for module in model.modules()]
    batch = {**inputs_for(model, 2), "labels": torch.tensor([0, 1])}
    for data in ([batch], [batch, {}]):  # at the end, and after an error
        try:
            record_trace(model, data)
        except ValueError:
            assert data[1:]
        assert [module.training for module in model.modules()] == modes


@pytest.mark.parametrize("head", ["linear", "pooler"])
def test_record_trace_keeps_what_is_asked_for(head):
    model = tiny_model(exits=[2, 4], head=head, scorer_row=True)
    batches = [
        {**inputs_for(model, n, seed=n), "labels": torch.zeros(n, dtype=torch.int64)}
        for n in (3, 1)
    ]
    trace = record_trace(model, batches, keep=["hidden", "scores"])
    for i, (vectors, score) in enumerate(zip(trace.hidden, trace.scores, strict=True), 1):
        assert list(vectors.shape) == [4, 32]
        logits, wanted = model.heads(i, vectors)  # the head reads what was kept
        torch.testing.assert_close(logits, trace.logits[i - 1])
        torch.testing.assert_close(wanted, score)
    again = record_trace(model, batches)
    assert again.hidden == ()
    assert again.scores is None


def test_record_trace_refuses_what_is_not_there_to_keep():
    model = tiny_model()
    batch = {**inputs_for(model, 2), "labels": torch.tensor([0, 1])}
    with pytest.raises(ValueError, match="needs a model with learned scores"):
        record_trace(model, [batch], keep=["scores"])
    for keep in (["attentions"], "hidden"):
        with pytest.raises(
            ValueError, match=r"keep must be some of \('hidden', 'scores', 'similarity'\)"
        ):
            record_trace(model, [batch], keep=keep)


def test_record_trace_refuses_bad_data():
    model = tiny_model()
    inputs = inputs_for(model, 2)
    with pytest.raises(ValueError, match="at least one batch"):
        record_trace(model, [])
    with pytest.raises(ValueError, match="batch 0 has no 'labels'"):
        record_trace(model, [inputs])


def test_record_trace_says_what_it_takes():
    model = tiny_model()
    batch = {**inputs_for(model, 2), "labels": torch.tensor([0, 1])}
    with pytest.raises(TypeError, match="iterable of batches, got one batch"):
        record_trace(model, batch)
    with pytest.raises(TypeError, match="batch 0 must be inputs by name, got <class 'list'>"):
        record_trace(model, [[batch["input_ids"], batch["labels"]]])
    with pytest.raises(TypeError, match="must be a MultiExitModel, got BertModel"):
        record_trace(model.backbone, [batch])
