"""Full depth on a CPU against other engines: what is asked when, and the page."""

import copy
import json

import pytest
import torch

from bench.cpu_peers import __main__ as command
from bench.cpu_peers import cell as of_cell
from bench.cpu_peers.engines import ENGINES, JUDGE, OURS, PEER, REFERENCE, Setup
from bench.cpu_peers.fixed_length import Ready
from bench.cpu_peers.models import SHAPES, texts
from bench.cpu_peers.page import markdown, ratio
from bench.cpu_peers.worker import EngineError

SETUP = Setup("BERT-base", 16, None, 2)


def engine(precision, role, ms=None, **more):
    return {"precision": precision, "role": role, **({"ms": ms} if ms else {}), **more}


CELL = {
    "shape": "BERT-base",
    "length": 16,
    "engines": {
        JUDGE: engine("float32", REFERENCE, [50.0, 52.0, 51.0], way="", differs_by=0.0),
        "eefast fp32": engine("float32", OURS, [15.0, 18.0, 30.0], way="", differs_by=1e-6),
        "eefast bf16": engine("bfloat16", OURS, error="RuntimeError: no bf16"),
        "eefast int8": engine("int8", OURS, [6.0, 6.0, 6.0], way="", differs_by=0.01),
        "OpenVINO fp32": engine("float32", PEER, [20.0, 24.0, 30.0], way="one length, f32"),
        "torch.compile fp32": engine("float32", PEER, [25.0, 25.0, 25.0], way=""),
        "OpenVINO bf16": engine("bfloat16", PEER, [9.0, 9.0, 9.0], way="any length, bf16"),
        "OpenVINO int8": engine("int8", PEER, [9.0, 8.0, 8.0], way="x", differs_by=0.02),
        "ONNX Runtime int8": engine("int8", PEER, [10.0, 10.0, 10.0], way="fused"),
    },
}
RESULTS = {
    "rounds": 3,
    "environment": {
        "date": "2026-01-02T03:04:05+00:00", "commit": "abc", "cpu": "Some CPU", "cpu_count": 2,
        "threads": 2, "flags": ["avx2", "amx_int8"], "load": 0.1,
        "versions": {"torch": "2.13.0", "nncf": None},
    },
    "cells": [CELL, CELL | {"length": 256}, CELL | {"shape": "MiniLM-L12"}],
}  # fmt: skip


def lines_with(text, *parts):
    return [line for line in text.splitlines() if all(part in line for part in parts)]


def test_the_ratio_is_paired_by_rounds_and_against_the_best_peer_of_the_precision():
    found = ratio(CELL, "float32")  # 24 of OpenVINO, 25 of torch.compile; 18 of 24 is .75
    assert (found.ours, found.peer, found.target) == ("eefast fp32", "OpenVINO fp32", 0.75)
    assert (found.ratio, found.low, found.high) == pytest.approx((0.75, 0.75, 1.0))
    assert not found.missed
    assert ratio(CELL, "int8").missed  # .75 of .65
    assert not ratio(CELL | {"length": 256}, "int8").missed  # no target


@pytest.mark.parametrize("without", ["eefast int8", ("OpenVINO int8", "ONNX Runtime int8")])
def test_without_times_there_is_no_ratio(without):
    cell = copy.deepcopy(CELL)
    for name in [without] if isinstance(without, str) else without:
        del cell["engines"][name]["ms"]
    assert ratio(cell, "int8") is None


def test_the_page():
    text = markdown(json.loads(json.dumps(RESULTS)))
    assert "Some CPU, 2 cores, 2 threads; instructions: avx2 amx_int8" in text
    assert "nncf none" in text
    assert text.index("## BERT-base") < text.index("## MiniLM-L12")
    fp32 = "| float32 | 16 | 18.00 | OpenVINO fp32: 24.00 | 0.75 | 0.75 to 1.00 | 0.75 |"
    assert len(lines_with(text, fp32)) == 2
    int8 = "| 6.00 | OpenVINO int8: 8.00 |"
    assert lines_with(text, "| int8 | 16 " + int8 + " **0.75** | 0.67 to 0.75 | 0.65 |")
    assert lines_with(text, "| int8 | 256 " + int8 + " 0.75 | 0.67 to 0.75 | - |")
    assert lines_with(text, "| bfloat16 | 16 | - | - | - | - | 0.70 |")
    assert lines_with(text, "| OpenVINO int8 | 8.00 (8.00 to 9.00) | 8.00 (8.00 to 9.00) |")
    assert lines_with(text, "| eefast bf16 | - | - |")
    assert lines_with(text, "- OpenVINO int8: x (at 16, 256); 0.02")
    assert lines_with(text, "- eefast bf16 at 16, 256 tokens: RuntimeError: no bf16")


class FakeWorker:
    """Answers at once. `log` gets every name that is asked, and what is closed."""

    def __init__(self, set_up):
        engine = set_up.args[0]
        self.name, self.log = engine, FakeWorker.log
        if engine == "torch.compile bf16":
            raise EngineError("cannot\nbe built")
        wrong = 0.5 if engine == "OpenVINO int8" else 1e-4
        logits = torch.zeros(4, 2)
        self.ready = Ready("a way", logits if engine == JUDGE else logits + wrong)

    def turn(self):
        self.log.append(self.name)
        if self.name == "OpenVINO bf16" and self.log.count(self.name) == 2:
            raise EngineError("its process ended with -9")
        return 1.0 + len(self.log)

    def close(self):
        self.log.append(f"close {self.name}")


@pytest.fixture
def log(monkeypatch):
    FakeWorker.log = []
    monkeypatch.setattr(of_cell, "Worker", FakeWorker)
    return FakeWorker.log


def test_every_engine_is_asked_once_a_round_in_an_order_drawn_anew(log):
    found = of_cell.measured(SETUP, {"onnx": "no disk"}, rounds=3)["engines"]
    failed = {name: one["error"] for name, one in found.items() if "error" in one}
    assert failed == {
        "torch.compile bf16": "cannot be built",
        "ONNX Runtime fp32": "its export: no disk",
        "OpenVINO int8": f"logits differ by 0.5 from those of {JUDGE}",
        "OpenVINO bf16": "its process ended with -9",
    }
    assert not any("ms" in found[name] for name in failed)
    sound = {name for name in ENGINES if name not in failed}
    turns = [name for name in log if name in sound]
    rounds = [turns[i : i + len(sound)] for i in range(0, len(turns), len(sound))]
    assert len(rounds) == 4  # the first does not count
    assert all(set(names) == sound for names in rounds)
    assert len({tuple(names) for names in rounds}) > 1
    assert all(len(found[name]["ms"]) == 3 for name in sound)
    assert "OpenVINO int8" not in log
    started = {f"close {name}" for name in ENGINES} - {
        "close torch.compile bf16", "close ONNX Runtime fp32",
    }  # fmt: skip
    assert {name for name in log if name.startswith("close")} == started


def test_without_the_model_itself_nothing_is_timed(log, monkeypatch):
    def failing(set_up):
        if set_up.args[0] == JUDGE:
            raise EngineError("no memory")
        return FakeWorker(set_up)

    monkeypatch.setattr(of_cell, "Worker", failing)
    found = of_cell.measured(SETUP, {}, rounds=1)["engines"]
    assert found[JUDGE]["error"] == "no memory"
    assert found["eefast fp32"]["error"] == f"there is no {JUDGE} to compare it with"
    assert not set(log) & set(ENGINES)


def test_texts_are_always_the_same_and_shapes_are_full():
    first, again = texts(16), texts(16)
    assert all(
        torch.equal(a["input_ids"], b["input_ids"]) for a, b in zip(first, again, strict=True)
    )
    assert first[0]["input_ids"].shape == (1, 16)
    assert not torch.equal(first[0]["input_ids"], texts(16, seed=1)[0]["input_ids"])
    assert {shape["num_hidden_layers"] for shape in SHAPES.values()} == {12}


def test_results_rewrites_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "RESULTS", tmp_path / "r.json")
    monkeypatch.setattr(command, "PAGE", tmp_path / "p.md")
    (tmp_path / "r.json").write_text(json.dumps(RESULTS))
    command.main(["--results"])
    assert (tmp_path / "p.md").read_text() == markdown(RESULTS)


def test_missing_packages_are_named_before_anything_is_measured(monkeypatch):
    monkeypatch.setattr(command, "PACKAGES", ("torch", "not_a_package"))
    with pytest.raises(SystemExit, match=r"^not_a_package not installed: .*the extra \[peers\]"):
        command.main([])


def test_rounds_below_one_are_refused(capsys):
    with pytest.raises(SystemExit):
        command.main(["--rounds", "0"])
    assert "--rounds must be 1 or more, got 0" in capsys.readouterr().err
