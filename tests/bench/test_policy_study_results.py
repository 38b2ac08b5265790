"""The study's results and page, from small traces made of numbers."""

import json

import pytest
import torch

from bench import policy_study
from bench.policy_study import bootstrap, page, results
from bench.policy_study.bootstrap import Resampled, summary
from bench.policy_study.results import OWN, RULE, TARGETS, fingerprints
from bench.policy_study.runs import SPLITS, Run, save_half
from bench.policy_study.settings import STUDIES, Study
from bench.policy_study.systems import SYSTEMS as ALL
from bench.policy_study.systems import Calibrator, System, beem
from eefast import ExitTrace, calibrate, simulate
from eefast.evaluation import FixedDepth
from eefast.policies import Budgeted, policy_class
from eefast.training import Exits, objective
from tests.traces.made import learned_trace

SYSTEMS = (
    beem("BEEM-A", weights="accuracy"),
    System("PABEE", "pabee", "weighted"),
    System("BERxiT", "berxit", "berxit", learned=True),
)
STUDY = Study("mr", "minilm", (1, 2), (2, 6))


def put(run, trace, folder, tmp_path):
    for split in SPLITS:
        part = tmp_path / "part.safetensors"
        trace[split].save(part)
        save_half(part, run.committed(folder, split))


def made(exits, seed, samples=150):
    whole = learned_trace(exits, 2 * samples, classes=2, seed=seed)
    rows = dict(zip(SPLITS, (slice(0, samples), slice(samples, None)), strict=True))
    return {
        split: ExitTrace(
            whole.logits[:, part],
            whole.labels[part],
            scores=whole.scores[:, part],
            fingerprint=f"{split} {seed}",
        )
        for split, part in rows.items()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Traces of two seeds: three and two trainings, and models of two and of all layers."""
    folder, parts = tmp_path_factory.mktemp("study"), tmp_path_factory.mktemp("parts")
    for seed in STUDY.seeds:
        traces = made(6, seed)
        for system in SYSTEMS[: 4 - seed]:
            put(Run(STUDY, system.objective, seed), traces, folder, parts)
        for layers in STUDY.layers:
            cut = {
                split: ExitTrace(t.logits[layers - 1 : layers], t.labels, (layers,))
                for split, t in traces.items()
            }
            put(Run(STUDY, "fixed", seed, layers), cut, folder, parts)
    return folder


@pytest.fixture(scope="module")
def found(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bootstrap, "RESAMPLES", 20)
        patch.setattr(results, "CURVE", (1.1,))
        patch.setattr(results, "BEEM_SETTINGS", results.BEEM_SETTINGS[1::8])
        return results.results(folder, SYSTEMS, [STUDY])


def test_results_are_the_same_each_time_and_survive_json(folder, found):
    one = Study("mr", "minilm", (2,), STUDY.layers)
    first, second = (results.results(folder, SYSTEMS[1:2], [one]) for _ in range(2))
    assert json.loads(json.dumps(first)) == second
    assert found["traces"] == fingerprints(folder)
    assert len(found["traces"]) == 2 * (3 + 2 + 2 * 2)
    assert found["traces"]["mr-minilm-beem-2.test.safetensors"] == "test 2"


def test_policies_are_chosen_on_validation_and_judged_on_test(folder, found):
    study = found["studies"]["mr-minilm"]
    assert study["seeds"] == [1, 2]
    assert study["missing"] == []
    for system in SYSTEMS:
        points = study["systems"][system.name]["points"]
        assert {RULE, OWN, "1.3", "1.5"} <= set(points)
        seeds = study["systems"][system.name]["seeds"]
        assert seeds == ([1] if system.name == "BERxiT" else [1, 2])
        for number, seed in enumerate(seeds):
            validation, test = (
                ExitTrace.load(Run(STUDY, system.objective, seed).committed(folder, split))
                for split in SPLITS
            )
            calibrator = Calibrator(system, validation)
            for name, policy in (
                (OWN, system.own(validation)),
                (RULE, calibrator.to(max_accuracy_drop=0.005)),
                ("1.5", calibrator.to(target_speedup=1.5)),
            ):
                outcome = simulate(policy, test)
                for figure, value in (
                    ("accuracy", outcome.accuracy),
                    ("speedup", outcome.layer_speedup),
                    ("difference", outcome.accuracy - test.accuracies()[-1].item()),
                    ("faster_exits", FixedDepth.of(test).speedup_gain(outcome)),
                    ("gain_exits", FixedDepth.of(test).accuracy_gain(outcome)),
                ):
                    met = points[name][figure]["seeds"][number]
                    assert met == pytest.approx(value, abs=1e-6), (system.name, name, figure)
        against = study["systems"][system.name]["against_reference"]
        assert system.name == "BEEM-A" or len(against["seeds"]) == len(seeds)
    assert study["crossed"]["PABEE on beem"]
    assert "BERxiT on beem" not in study["crossed"]  # its scores are another objective's


def test_a_calibrator_chooses_as_calibrate_does():
    trace = learned_trace(6, 150)
    for name in ("pabee", "entropy", "berxit"):
        calibrator = Calibrator(System(name, name, name), trace)
        for limit in ({"max_accuracy_drop": 0.005}, *({"target_speedup": t} for t in (1.3, 2.0))):
            ours, direct = calibrator.to(**limit), calibrate(name, trace, **limit)
            assert simulate(ours, trace).exit_histogram.equal(
                simulate(direct, trace).exit_histogram
            ), (name, limit)
        assert calibrator.to(target_speedup=100.0) is None
    assert Calibrator(SYSTEMS[0], trace).to(target_speedup=100.0) is None


def test_fixed_depth_gains_nothing_in_any_resample():
    test = learned_trace(4, 200)
    cut = {k: ExitTrace(test.logits[k - 1 : k], test.labels, (k,)) for k in range(1, 5)}
    resampled = Resampled(test, cut)
    first = resampled.figures(simulate(Budgeted(1), test))
    for name in ("exits", "trained"):
        assert first[f"faster_{name}"] == pytest.approx(1)
        assert first[f"gain_{name}"] == pytest.approx(0)
    figures = resampled.figures(simulate(Budgeted(4), test))
    assert len(figures["accuracy"]) == 1 + bootstrap.RESAMPLES
    assert figures["difference"] == pytest.approx(0)
    assert figures["accuracy"][1:].std() == pytest.approx(
        (figures["accuracy"][0] * (1 - figures["accuracy"][0]) / 200) ** 0.5, rel=0.2
    )
    said = summary([figures["accuracy"], figures["accuracy"] + 0.02])
    assert said["median"] == pytest.approx(figures["accuracy"][0] + 0.01, abs=1e-6)
    assert said["low"] < said["median"] < said["high"]


def test_a_study_without_the_full_model_is_refused(folder, tmp_path):
    put(Run(STUDY, "beem", 1), made(6, 1), tmp_path, tmp_path)
    with pytest.raises(ValueError, match="mr-minilm, seed 1: there are no traces of the model"):
        results.results(tmp_path, SYSTEMS, [STUDY])


def test_a_committed_trace_is_small_and_still_a_trace(tmp_path):
    trace = made(6, 1)["test"]
    trace.save(tmp_path / "a")
    save_half(tmp_path / "a", tmp_path / "b")
    again = ExitTrace.load(tmp_path / "b")
    assert (tmp_path / "b").stat().st_size < (tmp_path / "a").stat().st_size / 2
    assert again.fingerprint == trace.fingerprint
    assert torch.equal(again.labels, trace.labels)
    assert torch.equal(again.logits, trace.logits.half().float())
    assert torch.equal(again.scores, trace.scores.half().float())
    ExitTrace(torch.zeros(12, 4500, 20), torch.zeros(4500).long()).save(tmp_path / "a")
    with pytest.raises(ValueError, match=r"c would have 2\.2 MB, and 2 is the limit"):
        save_half(tmp_path / "a", tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_the_page_says_what_the_results_say(found, tmp_path):
    said = page.markdown(found)
    assert said == page.markdown(json.loads(json.dumps(found)))
    for words in ("BEEM-A is number", "At equal accuracy faster than", "| PABEE |", "-2L"):
        assert words in said
    changed = json.loads(json.dumps(found))
    changed["studies"]["mr-minilm"]["systems"]["PABEE"]["points"][RULE]["accuracy"]["median"] = 0.5
    assert page.markdown(changed) != said
    page.draw(found, tmp_path)
    assert (tmp_path / "mr-minilm.png").read_bytes().startswith(b"\x89PNG")


def test_what_exceeds_its_interval_is_said(found):
    study = json.loads(json.dumps(found["studies"]["mr-minilm"]))
    for name, low, high in (("BEEM-A", 1.1, 1.3), ("PABEE", 0.7, 0.9), ("BERxiT", 0.9, 1.1)):
        figure = study["systems"][name]["points"][RULE]["faster_trained"]
        figure.update(median=(low + high) / 2, low=low, high=high)
        if name != "BEEM-A":
            study["systems"][name]["against_reference"].update(low=low, high=high)
    said = page.statements(study)
    assert (
        "faster than -kL, beyond the interval: BEEM-A (1.20x); slower: PABEE (0.80x); 1 of 3"
    ) in said
    assert "BEEM-A is number 1 of 3 by speed" in said
    assert "faster than BEEM-A: none; slower: PABEE" in said


@pytest.mark.parametrize("system", ALL, ids=lambda system: system.name)
def test_the_policy_and_the_objective_of_every_system_are_there(system):
    policy_class(system.policy)
    objective(system.objective, Exits((1, 2, 3), (1.0, 1.0, 1.0), 2))


COMMITTED = policy_study.FOLDER / "results.json"


def test_the_committed_page_is_that_of_the_committed_results_and_traces():
    committed = json.loads(COMMITTED.read_text())
    times = policy_study.FOLDER / "times.json"
    measured = json.loads(times.read_text()) if times.exists() else None
    assert page.markdown(committed, measured) == policy_study.PAGE.read_text()
    assert committed["traces"] == fingerprints(policy_study.FOLDER)
    assert set(committed["studies"]) <= set(STUDIES)
    assert set(TARGETS) == {1.3, 1.5, 2.0}
