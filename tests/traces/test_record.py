"""Recording: what a model at full depth gives, in order, and what else is kept of it."""

import pytest
import torch

from eefast import record_trace
from tests.models import inputs_for, tiny_model


def test_record_trace_keeps_every_exit_in_order():
    model = tiny_model(exits=[2, 4]).train()
    batches = [
        {**inputs_for(model, 3, seed=seed), "labels": torch.tensor([0, 1, 2])} for seed in range(2)
    ]
    trace = record_trace(model, batches)
    assert model.training  # its mode is put back
    assert trace.exit_layers == (2, 4)
    assert trace.labels.tolist() == [0, 1, 2, 0, 1, 2]
    model.eval()
    for i, batch in enumerate(batches):
        wanted = torch.stack(model(**{k: v for k, v in batch.items() if k != "labels"}).exit_logits)
        torch.testing.assert_close(trace.logits[:, 3 * i : 3 * i + 3], wanted)


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
    assert not model.heads._forward_pre_hooks  # the model is as it was
    again = record_trace(model, batches)
    assert again.hidden == ()
    assert again.scores is None


def test_record_trace_refuses_what_is_not_there_to_keep():
    model = tiny_model()
    batch = {**inputs_for(model, 2), "labels": torch.tensor([0, 1])}
    with pytest.raises(ValueError, match="needs a model with learned scores"):
        record_trace(model, [batch], keep=["scores"])
    for keep in (["attentions"], "hidden"):
        with pytest.raises(ValueError, match=r"keep must be some of \('hidden', 'scores'\), got"):
            record_trace(model, [batch], keep=keep)


def test_record_trace_refuses_bad_data():
    model = tiny_model()
    inputs = inputs_for(model, 2)
    with pytest.raises(ValueError, match="at least one batch"):
        record_trace(model, [])
    with pytest.raises(ValueError, match="batch 0 has no 'labels'"):
        record_trace(model, [inputs])
    with pytest.raises(ValueError, match=r"labels must be in \[0, 3\), got 0\.\.3"):
        record_trace(model, [{**inputs, "labels": torch.tensor([0, 3])}])
    assert not model.training


def test_record_trace_says_what_it_takes():
    model = tiny_model()
    batch = {**inputs_for(model, 2), "labels": torch.tensor([0, 1])}
    with pytest.raises(TypeError, match="iterable of batches, got one batch"):
        record_trace(model, batch)
    with pytest.raises(TypeError, match="must be a MultiExitModel, got BertModel"):
        record_trace(model.backbone, [batch])
    with pytest.raises(ValueError, match="regression model has none"):
        record_trace(tiny_model(classes=1), [batch])
