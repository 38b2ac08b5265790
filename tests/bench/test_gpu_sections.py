"""Sections of bench/gpu: what is measured is written at once and survives what goes wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.gpu import sections, worker
from bench.gpu.sections import SECTIONS, Results, run_section
from bench.gpu.worker import GPU_IS_LOST, Job, NotThereError, run


def job(tmp_path, items, seconds=100.0, reserve=None):
    return Job(items, seconds, {}, False, str(tmp_path / "progress.json"), reserve)


def progress(tmp_path):
    return json.loads((tmp_path / "progress.json").read_text())


def test_items_are_written_down_as_they_are_done(tmp_path):
    def second(seconds, at):
        assert progress(tmp_path)["done"] == {"first": 1}
        assert progress(tmp_path)["at"] == "second"
        at("a part")
        assert progress(tmp_path)["part"] == "a part"
        return 2

    items = {"first": lambda s, at: 1, "second": second}
    assert run(job(tmp_path, ["first", "second"]), items, lambda: None) == 0
    assert progress(tmp_path) == {"done": {"first": 1, "second": 2}, "at": None, "part": None}


def test_items_that_fail_leave_the_others(tmp_path):
    def missing(seconds, at):
        raise NotThereError("not built")

    def broken(seconds, at):
        raise ValueError("what it got")

    items = {"missing": missing, "broken": broken, "well": lambda s, at: 1}
    assert run(job(tmp_path, list(items)), items, lambda: None) == 0
    assert progress(tmp_path)["done"] == {
        "missing": {"skipped": "not built"}, "broken": {"error": "ValueError: what it got"},
        "well": 1,
    }  # fmt: skip


def test_a_lost_gpu_ends_the_worker_where_it_was(tmp_path, capsys):
    def lost():
        raise RuntimeError("lost")

    def fatal(seconds, at):
        at("graph nested")
        raise RuntimeError("illegal address")

    items = {"well": lambda s, at: 1, "fatal": fatal, "later": lambda s, at: 2}
    assert run(job(tmp_path, list(items)), items, lost) == GPU_IS_LOST
    assert progress(tmp_path) == {"done": {"well": 1}, "at": "fatal", "part": "graph nested"}
    assert "illegal address" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "reserve", "shares"),
    [(90, None, [30, 45, 90]), (90, 10, [70, 80, 90]), (15, 10, [5, 7.5, 15])],
)
def test_how_time_is_shared(tmp_path, seconds, reserve, shares):
    """If earlier items take no time at all."""
    met = []
    items = dict.fromkeys("abc", lambda s, at: met.append(s))
    run(job(tmp_path, list("abc"), seconds, reserve), items, lambda: None)
    assert met == pytest.approx(shares, abs=1)


def test_without_time_nothing_is_begun(tmp_path):
    run(job(tmp_path, ["a"], 0), {"a": lambda s, at: 1 / 0}, lambda: None)
    assert progress(tmp_path)["done"] == {"a": {"skipped": "no time left"}}


DONE = {"without": []}
WORKER = """
import json, os, sys, time
job = json.load(open(sys.argv[1]))
state = {"done": {}, "at": None, "part": None}
def write(**changed):
    state.update(changed)
    open(job["progress"] + ".new", "w").write(json.dumps(state))
    os.replace(job["progress"] + ".new", job["progress"])
for item in job["items"]:
    write(at=item)
    if item == "dies":
        print("bad kernel", file=sys.stderr, flush=True)
        os._exit(9)
    if item == "hangs":
        time.sleep(60)
    if item == "has a bad part" and "bad" not in job["without"]:
        write(part="bad")
        os._exit(3)
    state["done"][item] = {"without": sorted(job["without"])}
    write(at=None, part=None)
"""


def started(path, log):
    return subprocess.Popen([sys.executable, "-c", WORKER, str(path)], stdout=log, stderr=log)


def measured(tmp_path, items, seconds=30.0, silence_s=20.0):
    results = Results(tmp_path)
    run_section(results, "costs", items, seconds, start=started, silence_s=silence_s)
    written = json.loads((tmp_path / "results.json").read_text())
    assert written == results.data
    return written["costs"]["items"]


def test_a_worker_that_dies_is_followed_by_another(tmp_path):
    found = measured(tmp_path, ["one", "dies", "two"])
    assert found["one"] == found["two"] == DONE
    assert "status 9" in found["dies"]["error"]
    assert "bad kernel" in found["dies"]["error"]
    assert "bad kernel" in (tmp_path / "results.md").read_text()


def test_the_part_that_killed_a_worker_is_left_out_next_time(tmp_path):
    assert measured(tmp_path, ["has a bad part", "two"]) == {
        "has a bad part": {"without": ["bad"]}, "two": {"without": ["bad"]},
    }  # fmt: skip


def test_a_worker_that_cannot_begin_is_tried_once(tmp_path):
    begun = []

    def start(path, log):
        begun.append(path)
        return subprocess.Popen([sys.executable, "-c", "1 / 0"], stderr=log)

    results = Results(tmp_path)
    run_section(results, "costs", ["one", "two"], 30.0, start=start)
    assert len(begun) == 1
    found = results.data["costs"]["items"]
    assert all("ZeroDivisionError" in found[item]["error"] for item in ("one", "two"))


def test_a_worker_that_hangs_is_ended(tmp_path):
    found = measured(tmp_path, ["one", "hangs", "two"], silence_s=1.0)
    assert found["one"] == found["two"] == DONE
    assert "no progress for 1 s" in found["hangs"]["error"]


def test_time_that_runs_out(tmp_path, monkeypatch):
    monkeypatch.setattr(sections, "GRACE_S", 0.0)
    found = measured(tmp_path, ["one", "hangs", "two"], seconds=2.0)
    assert found["one"] == DONE
    assert found["hangs"] == {"skipped": "not done in time"}
    assert found["two"] == {"skipped": "no time left"}


def test_an_interruption_loses_nothing_that_was_measured(tmp_path, monkeypatch):
    def interrupted(*arguments):
        taken = arguments[2]
        taken({"done": {"one": DONE}, "at": "two", "part": None})
        raise KeyboardInterrupt

    monkeypatch.setattr(sections, "_watch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_section(Results(tmp_path), "costs", ["one", "two"], 10, start=lambda *_: None)
    assert json.loads((tmp_path / "results.json").read_text())["costs"]["items"] == {"one": DONE}


def test_a_report_that_cannot_be_made_does_not_cost_the_results(tmp_path, monkeypatch):
    def broken(data):
        raise KeyError("us")

    monkeypatch.setattr(sections.report, "markdown", broken)
    Results(tmp_path).put("tests", {"passed": 1})
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["tests"] == {"passed": 1}
    assert "KeyError" in written["report"]["error"]


def test_every_item_of_every_section_can_be_measured(monkeypatch):
    monkeypatch.setattr(worker.torch.cuda, "current_device", lambda: 0)
    known = worker.items_for(None, job(Path("."), []))
    for section in SECTIONS.values():
        assert set(section.items) <= known.keys()
    asked = [item for section in SECTIONS.values() for item in section.items]
    assert sorted(asked) == sorted(known)
