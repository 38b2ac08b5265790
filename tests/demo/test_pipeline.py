"""The demo in small: a tiny model, a few real texts; every step, twice."""

import dataclasses
import json
from functools import partial

import pytest
from datasets import DatasetDict
from transformers import AutoConfig

from eefast import MultiExitModel, simulate
from eefast.demo import TASKS, pipeline, run_demo, trained_model
from eefast.demo.policies import CHOOSERS, EARLY_EXIT, EQUATION_3, FIXED_DEPTH, STORED
from eefast.demo.tasks import Task
from eefast.evaluation import NEVER, TRANSFORMERS, repeated_splits
from eefast.policies import BEEM, Budgeted, policy_from_dict
from eefast.traces import ExitTrace
from tests.models import save_tiny_text_model
from tests.traces.made import learned_trace


def test_policies_are_chosen_by_one_rule_and_beem_by_equation_3_too():
    trace = learned_trace(exits=6, samples=800)
    floor = trace.accuracies()[-1].item() - 0.005
    for name, choose in {**EARLY_EXIT, **FIXED_DEPTH}.items():
        assert simulate(choose(trace), trace).accuracy >= floor, name
    fixed = FIXED_DEPTH["fixed depth"](trace)
    assert isinstance(fixed, Budgeted)
    assert fixed.exit == 1 + next(i for i, a in enumerate(trace.accuracies()) if a >= floor)
    for name, choose in EQUATION_3.items():
        policy = choose(trace)
        assert isinstance(policy, BEEM)
        assert len(set(policy.thresholds)) > 1, name  # one for each exit
    assert EQUATION_3["BEEM-A, Eq. 3"](trace).weights == tuple(trace.accuracies().tolist())


@pytest.fixture
def small(monkeypatch, tmp_path_factory):
    reviews, base = TASKS["reviews"], tmp_path_factory.mktemp("base")
    save_tiny_text_model(base, reviews.load(3)["train"]["text"])

    def few(seed):
        data = reviews.load(seed)
        return DatasetDict({split: data[split].select(range(96)) for split in data})

    monkeypatch.setitem(TASKS, "reviews", dataclasses.replace(reviews, load=few, epochs=1))
    monkeypatch.setattr(Task, "pretrained", lambda task: base)
    monkeypatch.setattr(pipeline, "TIMED_TEXTS", 6)
    monkeypatch.setattr(pipeline, "repeated_splits", partial(repeated_splits, splits=2))


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_the_pretrained_model_is_there(task):
    assert AutoConfig.from_pretrained(task.pretrained()).num_hidden_layers == 6


def test_a_run_reports_and_a_second_one_reuses_it(small, tmp_path, capsys, monkeypatch):
    assert trained_model(tmp_path, "reviews", 3) is None
    run_demo(tmp_path, task="reviews", seed=3, sentences=["what a film", "never again"])
    first = capsys.readouterr().out
    assert "after layer" in first
    assert "never again" in first
    assert "Against fixed depth" in first
    folder = tmp_path / "reviews-3"
    assert trained_model(tmp_path, "reviews", 3) == folder / "model"
    assert trained_model(tmp_path, "tweets", 3) is None
    assert (folder / "trade_off.png").read_bytes().startswith(b"\x89PNG")
    report = json.loads((folder / "report.json").read_text())
    assert report["task"]["test"] == report["samples"] == 96
    assert list(report["splits"]) == [*CHOOSERS, NEVER]
    assert report["splits"][NEVER]["layer_speedup"]["median"] == 1

    rows = {row["name"]: row for row in report["rows"]}
    assert {*CHOOSERS, NEVER, TRANSFORMERS} <= rows.keys()
    validation, test = (
        ExitTrace.load(folder / f"{split}.safetensors") for split in ("validation", "test")
    )
    model = MultiExitModel.from_pretrained(folder / "model")
    for name, choose in CHOOSERS.items():  # on validation data, and nothing else
        policy = choose(validation)
        assert policy_from_dict(rows[name]["setting"]) == policy
        assert rows[name]["accuracy"] == simulate(policy, test).accuracy
        if name in STORED:
            assert model.get_policy(policy.name) == policy

    def again(*args, **kwargs):
        raise AssertionError("a finished step was done again")

    monkeypatch.setattr(pipeline, "fine_tune", again)
    monkeypatch.setattr("eefast.traces.cached.record_trace", again)
    run_demo(tmp_path, task="reviews", seed=3)
    second = json.loads((folder / "report.json").read_text())
    for same in ("task", "exit_accuracies", "splits"):
        assert second[same] == report[same]


def test_an_unknown_task_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"task must be one of \['reviews', 'tweets'\], got 'x'"):
        run_demo(tmp_path / "new", task="x", seed=1)
    assert not (tmp_path / "new").exists()
