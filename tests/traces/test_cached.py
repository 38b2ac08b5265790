"""Traces in files: read only where they are of the same model and the same data."""

import pytest
import torch
from safetensors.torch import save_file

from eefast import MultiExitModel
from eefast.policies import Confidence
from eefast.traces import ExitTrace, cached, cached_trace
from tests.models import inputs_for, tiny_model


def batches(seed=0, **changes):
    inputs = inputs_for(tiny_model(), 3, seed=seed)
    return [{**inputs, "labels": torch.tensor([0, 1, 2]), **changes}]


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A trace in a file, and how often a trace was recorded since."""
    recorded = []

    def record(*args, **kwargs):
        recorded.append(args)
        return record_trace(*args, **kwargs)

    record_trace = cached.record_trace
    monkeypatch.setattr(cached, "record_trace", record)
    cached_trace(tmp_path / "trace.safetensors", tiny_model(), batches())
    recorded.clear()
    return tmp_path / "trace.safetensors", recorded


def test_the_same_model_and_data_are_not_recorded_again(kept, tmp_path):
    path, recorded = kept
    model = tiny_model()
    model.set_policy(Confidence(0.5))  # no logit depends on it
    first = cached_trace(path, model, batches())
    model.save_pretrained(tmp_path)
    again = cached_trace(path, MultiExitModel.from_pretrained(tmp_path), batches())
    assert not recorded
    assert torch.equal(first.logits, again.logits)
    assert first.fingerprint


def changed_weight():
    model = tiny_model()
    with torch.no_grad():
        next(iter(model.heads.parameters()))[0] += 1e-6
    return model, batches()


def changed_structure():
    model = tiny_model()
    model.config.backbone_config.layer_norm_eps = 1e-3
    return model, batches()


@pytest.mark.parametrize(
    "change",
    [
        changed_weight,
        changed_structure,
        lambda: (tiny_model(exits=[2, 4]), batches()),
        lambda: (tiny_model().bfloat16(), batches()),
        lambda: (tiny_model(), batches(seed=1)),
        lambda: (tiny_model(), batches(labels=torch.tensor([0, 1, 1]))),
        lambda: (tiny_model(), [*batches(), *batches()]),
    ],
)
def test_another_model_or_other_data_are_recorded(kept, change):
    path, recorded = kept
    model, data = change()
    trace = cached_trace(path, model, data)
    assert len(recorded) == 1
    assert torch.equal(cached_trace(path, model, data).logits, trace.logits)
    assert len(recorded) == 1


def test_what_policies_may_ask_for_is_kept_where_the_model_has_it(tmp_path):
    for options in ({}, dict(scorer_row=True), dict(share_head=True), dict(objective="mue")):
        model = tiny_model(**options)
        for _ in range(2):  # recorded, then read
            trace = cached_trace(tmp_path / "trace", model, batches())
            assert (trace.scores is not None) == ("scorer_row" in options)
            assert (trace.similarity is not None) == model.config.share_head


def test_a_trace_of_unknown_origin_is_recorded_anew(kept):
    path, recorded = kept
    ExitTrace(torch.zeros(4, 3, 3), torch.tensor([0, 1, 2])).save(path)
    assert cached_trace(path, tiny_model(), batches()).logits.any()
    assert len(recorded) == 1


def test_a_file_of_something_else_is_left_alone(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(1)}, path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"model\.safetensors is not an eefast trace"):
        cached_trace(path, tiny_model(), batches())
    assert path.read_bytes() == before


def test_what_is_recorded_is_what_the_fingerprint_is_of(tmp_path):
    """Data in another order each time they are gone through: each order has its own trace."""

    class Turning:
        def __init__(self):
            self.data = [*batches(), *batches(1, labels=torch.tensor([2, 1, 0]))]

        def __iter__(self):
            self.data = self.data[1:] + self.data[:1]
            return iter(self.data)

    model, data = tiny_model(), Turning()
    trace = cached_trace(tmp_path / "a", model, data)
    assert torch.equal(trace.labels, torch.cat([batch["labels"] for batch in data.data]))
    with pytest.raises(TypeError, match="must be a MultiExitModel"):
        cached_trace(tmp_path / "a", model.backbone, batches())
