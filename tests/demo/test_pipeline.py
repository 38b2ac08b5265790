"""The demo in small: real weights and tweets, a few of them; every step, twice."""

import json

import pytest
import torch
from datasets import DatasetDict

from eefast import MultiExitModel, simulate
from eefast.demo import pipeline, run_demo
from eefast.demo.data import load_tweets
from eefast.policies import BEEM, Never, policy_from_dict
from eefast.traces import ExitTrace
from tests.models import inputs_for, tiny_model
from tests.traces.made import learned_trace


def test_every_policy_is_calibrated_alike_on_validation_data():
    trace = learned_trace(exits=6, samples=800)
    policies = pipeline.calibrated(trace)
    assert list(policies)[:2] == ["BEEM-A", "BEEM-C"]
    assert policies["BEEM-A"].weights == tuple(trace.accuracies().tolist())
    assert isinstance(policies["BEEM-C"], BEEM)
    assert policies["never"] == Never()
    floor = trace.accuracies()[-1].item()
    for name in ("BEEM-A, searched", "BEEM-C, searched", "PABEE", "PCEE", "entropy"):
        outcome = simulate(policies[name], trace)
        assert outcome.accuracy >= floor, name


@pytest.fixture
def small(monkeypatch):
    def few(seed=0):
        tweets = load_tweets(seed)
        return DatasetDict({split: tweets[split].select(range(96)) for split in tweets})

    monkeypatch.setattr(pipeline, "load_tweets", few)
    monkeypatch.setattr(pipeline, "TIMED_TWEETS", 6)


def test_a_run_reports_and_a_second_one_reuses_it(small, tmp_path, capsys, monkeypatch):
    run_demo(tmp_path, seed=3, sentences=["what a day", "never again"])
    first = capsys.readouterr().out
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report) == {"dataset", "exits", "policies", "full_depth", "environment"}
    assert report["dataset"]["test"] == 96
    assert len(report["exits"]) == 6
    assert (tmp_path / "trade_off.png").read_bytes().startswith(b"\x89PNG")
    for row in report["policies"]:
        assert sum(row["exit_histogram"]) == 96
        assert 0 <= row["accuracy"] <= 1
        assert row["layer_speedup"] >= 1
        assert row["p90_ms"] >= row["p50_ms"] > 0
        assert row["wall_clock_speedup"] > 0
    never = next(row for row in report["policies"] if row["name"] == "never")
    assert never["wall_clock_speedup_vs_never"] == 1
    assert never["accuracy"] == report["full_depth"]["accuracy"]
    trace = ExitTrace.load(tmp_path / "model-3" / "test.safetensors")
    timed = ExitTrace(trace.logits[:, :6], trace.labels[:6])
    validation = ExitTrace.load(tmp_path / "model-3" / "validation.safetensors")
    chosen = pipeline.calibrated(validation)  # on validation data, and nothing else
    assert {row["name"]: policy_from_dict(row["setting"]) for row in report["policies"]} == chosen
    assert (
        MultiExitModel.from_pretrained(tmp_path / "model-3").get_policy("beem") == chosen["BEEM-A"]
    )
    for row in report["policies"]:  # what was timed did what the accuracy column says
        outcome = simulate(policy_from_dict(row["setting"]), timed)
        assert row["layer_speedup_timed"] == pytest.approx(outcome.layer_speedup), row["name"]
    assert "after layer" in first
    assert "never again" in first

    def no_training(*args, **kwargs):
        raise AssertionError("a finished model was trained again")

    monkeypatch.setattr(pipeline, "fine_tune", no_training)
    run_demo(tmp_path, seed=3)
    again = json.loads((tmp_path / "report.json").read_text())
    for before, after in zip(report["policies"], again["policies"], strict=True):
        assert {k: before[k] for k in ("name", "setting", "accuracy", "exit_histogram")} == {
            k: after[k] for k in ("name", "setting", "accuracy", "exit_histogram")
        }


def test_the_full_depth_baseline_is_the_same_classifier():
    model = tiny_model(head="pooler")
    inputs = inputs_for(model, 5, padded=True)
    with torch.inference_mode():
        torch.testing.assert_close(
            pipeline.full_depth_model(model)(**inputs).logits, model(**inputs).logits
        )
