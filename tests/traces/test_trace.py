"""Traces: what they hold, and how they are saved."""

import math

import pytest
import torch
from safetensors.torch import save_file

from eefast import ExitTrace, simulate
from eefast.policies import Never


def test_accuracy_of_each_exit():
    logits = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]]])
    assert ExitTrace(logits, torch.tensor([1, 0])).accuracies().tolist() == [0.5, 1.0]


def test_exits_that_have_learned_nothing_are_named():
    """60 of 100 samples are of class 0: 0.60 is chance, 0.69 within two standard errors of it."""
    labels = torch.tensor([0] * 60 + [1] * 40)
    right = torch.tensor([[i < n for i in range(100)] for n in (60, 69, 71, 0)])
    answers = torch.where(right, labels, 1 - labels)
    trace = ExitTrace(torch.nn.functional.one_hot(answers, 2).float(), labels)
    assert trace.exits_at_chance() == [1, 2, 4]
    assert ExitTrace(torch.zeros(2, 0, 2), labels[:0]).exits_at_chance() == []


def test_logits_and_scores_are_kept_as_float32_and_labels_as_int64():
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        values = torch.ones(2, 3, 2, dtype=dtype)
        trace = ExitTrace(values, torch.tensor([0, 1, 1]).int(), scores=values[:, :, 0])
        assert trace.logits.dtype == trace.scores.dtype == torch.float32
        assert trace.labels.dtype == torch.int64
    with pytest.raises(TypeError, match="logits must be a tensor, got list"):
        ExitTrace([[[0.0]]], torch.tensor([0]))


def test_repr_is_short():
    trace = ExitTrace(torch.tensor([[[1.0, 0.0]] * 4] * 2), torch.tensor([0, 1, 1, 1]))
    assert repr(trace) == (
        "ExitTrace(2 exits, 4 samples, 2 classes; accuracy of each exit: 0.250, 0.250)"
    )
    assert repr(simulate(Never(), trace)) == (
        "Simulation(4 samples; accuracy 0.250, layer speed-up 1.00, samples at each exit: [0, 4])"
    )


def test_a_trace_of_one_output(tmp_path):
    trace = ExitTrace(torch.randn(2, 5, 1), torch.arange(5, dtype=torch.float64)[:, None])
    assert trace.labels.dtype == torch.float32
    assert trace.labels.tolist() == [0, 1, 2, 3, 4]
    assert repr(trace) == "ExitTrace(2 exits, 5 samples, one output)"
    assert repr(simulate(Never(), trace)) == (
        "Simulation(5 samples; layer speed-up 1.00, samples at each exit: [0, 5])"
    )
    trace.save(tmp_path / "trace.safetensors")
    loaded = ExitTrace.load(tmp_path / "trace.safetensors")
    assert torch.equal(loaded.labels, trace.labels)
    assert loaded.metric("spearman").tolist() == trace.metric("spearman").tolist()
    for figure in (trace.accuracies, trace.exits_at_chance):
        with pytest.raises(ValueError, match=r"pearson, spearman with one output \(regression\)"):
            figure()
    with pytest.raises(ValueError, match=r"labels must be \[5\], got \[4\]"):
        ExitTrace(trace.logits, trace.labels[:4])


def test_save_and_load(tmp_path):
    trace = ExitTrace(torch.randn(2, 5, 3), torch.tensor([0, 1, 2, 1, 0]), (3, 6))
    trace.save(tmp_path / "trace.safetensors")
    loaded = ExitTrace.load(tmp_path / "trace.safetensors")
    assert torch.equal(loaded.logits, trace.logits)
    assert torch.equal(loaded.labels, trace.labels)
    assert loaded.exit_layers == (3, 6)
    assert loaded.costs == (1.0,) * 6
    assert loaded.scores is None
    assert loaded.hidden == ()


def test_save_and_load_all_that_is_kept(tmp_path):
    trace = ExitTrace(
        torch.randn(2, 3, 2),
        torch.tensor([0, 1, 1]),
        (1, 3),
        costs=(1, 0.5, 0.25),
        scores=torch.rand(3, 2).T,  # not contiguous
        hidden=(torch.randn(3, 4).bfloat16(), torch.randn(3, 8).bfloat16()),
    )
    trace.save(tmp_path / "trace.safetensors")
    loaded = ExitTrace.load(tmp_path / "trace.safetensors")
    assert loaded.costs == (1.0, 0.5, 0.25)
    assert torch.equal(loaded.scores, trace.scores)
    for kept, wanted in zip(loaded.hidden, trace.hidden, strict=True):
        assert torch.equal(kept, wanted)
        assert kept.dtype == torch.bfloat16


def test_load_takes_traces_from_before_there_were_costs(tmp_path):
    tensors = {"logits": torch.randn(2, 3, 2), "labels": torch.tensor([0, 1, 1])}
    metadata = {"format": "eefast-trace-1", "exit_layers": "[2, 4]"}
    save_file(tensors, tmp_path / "old.safetensors", metadata)
    assert ExitTrace.load(tmp_path / "old.safetensors").costs == (1.0,) * 4


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
    save_file({"logits": torch.zeros(1, 1, 1)}, path, {"format": "eefast-trace-1"})
    with pytest.raises(ValueError, match=r"holds no labels, only \['logits'\]"):
        ExitTrace.load(path)
    ExitTrace(torch.randn(2, 5, 3), torch.zeros(5, dtype=torch.int64)).save(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="damaged"):
        ExitTrace.load(path)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({}, "its header must hold exit_layers, a list, got ''"),
        ({"exit_layers": "2"}, "its header must hold exit_layers, a list, got '2'"),
        ({"exit_layers": "[2"}, r"its header must hold exit_layers, a list, got '\[2'"),
        ({"exit_layers": "[1.5, 2]"}, r"exit_layers must be 2 ascending layers.* got \(1\.5, 2\)"),
        ({"exit_layers": "[1, 2]", "costs": "3"}, "its header must hold costs, a list, got '3'"),
        ({"exit_layers": "[1, 2]", "costs": "[1, null]"}, r"float\(\) argument must be"),
    ],
)
def test_load_names_the_file_whose_header_is_wrong(tmp_path, header, words):
    path = tmp_path / "file.safetensors"
    tensors = {"logits": torch.zeros(2, 3, 2), "labels": torch.zeros(3, dtype=torch.int64)}
    save_file(tensors, path, {"format": "eefast-trace-1", **header})
    with pytest.raises(ValueError, match=rf"file\.safetensors is no trace.*: {words}"):
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
        *(
            (torch.zeros(2, 3, 2), torch.zeros(3).long(), layers, "exit_layers must be 2 ascending")
            for layers in [(1.5, 2), (True, 2), ("1", "2"), (0, 1), (1, 1)]
        ),
        *(
            (torch.zeros(2, 3, 2).to(dtype), torch.zeros(3).long(), (), "logits must be floats of")
            for dtype in (torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn)
        ),
    ],
)
def test_what_does_not_belong_together_is_refused(logits, labels, layers, words):
    with pytest.raises(ValueError, match=words):
        ExitTrace(logits, labels, layers)


@pytest.mark.parametrize(
    ("extras", "words"),
    [
        (dict(costs=(1.0,)), "costs must be 2 numbers greater than 0"),
        (dict(costs=(1.0, 0.0)), "costs must be 2 numbers greater than 0"),
        (dict(costs=(1.0, math.inf)), "costs must be 2 numbers greater than 0"),
        (dict(scores=torch.zeros(3, 2)), r"scores must be \[2, 3\], got \[3, 2\]"),
        (dict(scores=torch.zeros(2, 3).long()), "scores must be floats of 16, 32 or 64 bits"),
        (dict(hidden=(torch.zeros(3, 4).long(),) * 2), "hidden must be floats of 16, 32 or 64"),
        (dict(hidden=(torch.zeros(3, 4),)), r"hidden must be 2 times \[3, D\]"),
        (dict(hidden=(torch.zeros(3, 4), torch.zeros(2, 4))), r"got \[\[3, 4\], \[2, 4\]\]"),
    ],
)
def test_extras_that_do_not_belong_are_refused(extras, words):
    with pytest.raises(ValueError, match=words):
        ExitTrace(torch.zeros(2, 3, 2), torch.zeros(3).long(), **extras)
