"""Traces: what they hold, how they are saved, and how they are recorded."""

import pytest
import torch
from safetensors.torch import save_file

from eefast import ExitTrace, record_trace
from tests.models import inputs_for, tiny_model


def test_accuracy_of_each_exit():
    logits = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]]])
    assert ExitTrace(logits, torch.tensor([1, 0])).accuracies().tolist() == [0.5, 1.0]


def test_save_and_load(tmp_path):
    trace = ExitTrace(torch.randn(2, 5, 3), torch.tensor([0, 1, 2, 1, 0]), (3, 6))
    trace.save(tmp_path / "trace.safetensors")
    loaded = ExitTrace.load(tmp_path / "trace.safetensors")
    assert torch.equal(loaded.logits, trace.logits)
    assert torch.equal(loaded.labels, trace.labels)
    assert loaded.exit_layers == (3, 6)


def test_load_refuses_what_is_no_trace(tmp_path):
    path = tmp_path / "file.safetensors"
    with pytest.raises(FileNotFoundError):
        ExitTrace.load(path)
    path.write_bytes(b"not safetensors at all")
    with pytest.raises(ValueError, match="not a safetensors file, or is damaged"):
        ExitTrace.load(path)
    save_file({"weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="not an eefast trace"):
        ExitTrace.load(path)
    ExitTrace(torch.randn(2, 5, 3), torch.zeros(5, dtype=torch.int64)).save(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="damaged"):
        ExitTrace.load(path)


@pytest.mark.parametrize(
    ("logits", "labels", "layers", "words"),
    [
        (torch.zeros(2, 3), torch.zeros(3).long(), (), r"logits must be \[L, N, C\]"),
        (torch.zeros(0, 3, 2), torch.zeros(3).long(), (), "at least one exit"),
        (torch.zeros(2, 3, 2), torch.zeros(4).long(), (), r"labels must be \[3\], got \[4\]"),
        (torch.zeros(2, 3, 2), torch.tensor([0, 1, 2]), (), r"labels must be in \[0, 2\)"),
        (torch.zeros(2, 3, 2), torch.tensor([0, 1, -1]), (), r"labels must be in \[0, 2\)"),
        (torch.zeros(2, 3, 2), torch.zeros(3), (), "labels must be integers"),
        (torch.zeros(2, 3, 2), torch.zeros(3).long(), (1,), "exit_layers must be 2 ascending"),
        (torch.zeros(2, 3, 2), torch.zeros(3).long(), (2, 1), "exit_layers must be 2 ascending"),
    ],
)
def test_what_does_not_belong_together_is_refused(logits, labels, layers, words):
    with pytest.raises(ValueError, match=words):
        ExitTrace(logits, labels, layers)


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
