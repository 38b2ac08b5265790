"""`python -m bench.gpu`: arguments, what it does without a GPU, and the order of work."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.gpu import __main__ as command
from bench.gpu import environment, gpu_tests, nvml, sections

ROOT = Path(__file__).parents[2]


def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["bench.gpu", "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(command.__file__, run_name="__main__")
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.err == "bench.gpu: there is no CUDA device here; nothing was measured\n"
    assert printed.out == ""
    assert not out.exists()


@pytest.mark.parametrize("arguments", [[], ["--out"], ["--out", "x", "--rounds", "3"]])
def test_arguments_that_it_does_not_take(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 2
    assert "usage: python -m bench.gpu" in capsys.readouterr().err


def test_imports_touch_no_gpu():
    program = """
import pkgutil, importlib, torch
def touched(*arguments, **options):
    raise SystemExit("CUDA was touched")
torch.cuda._lazy_init = torch.cuda.is_available = touched
torch.cuda.current_device = torch.cuda.synchronize = touched
import bench.gpu
for module in pkgutil.iter_modules(bench.gpu.__path__):
    importlib.import_module("bench.gpu." + module.name)
assert not torch.cuda.is_initialized()
print("well")
"""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == "well", done.stderr[-2000:]


@pytest.fixture
def gpu(monkeypatch):
    """A machine with a GPU, and what was asked of it."""
    log = []

    def tests(folder, seconds):
        log.append("tests")
        return {"passed": 1, "failed": 0, "skipped": 0, "failures": []}

    def section(results, name, items, seconds, **options):
        log.append((name, items, options))
        results.put(name, {"items": {}})

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu_tests, "run_tests", tests)
    monkeypatch.setattr(sections, "run_section", section)
    return log


def test_tests_come_first_then_all_sections(gpu, tmp_path, capsys):
    assert command.main(["--out", str(tmp_path / "a" / "b")]) == 0
    assert gpu[0] == "tests"
    assert [name for name, *_ in gpu[1:]] == ["costs", "exit_steps", "models"]
    assert len(gpu[-1][1]) == 12
    written = json.loads((tmp_path / "a" / "b" / "results.json").read_text())
    assert written["tests"]["passed"] == 1
    assert written.keys() >= {"costs", "exit_steps", "models", "seconds"}
    assert (tmp_path / "a" / "b" / "results.md").read_text() in capsys.readouterr().out


def test_quick_leaves_out_what_takes_long(gpu, tmp_path):
    assert command.main(["--out", str(tmp_path), "--quick"]) == 0
    assert "tests" not in gpu
    assert len(gpu[-1][1]) == 1
    assert all(options["quick"] for *_, options in gpu)


@pytest.mark.parametrize("fails", ["tests", "section"])
def test_a_failure_is_recorded_and_stops_nothing(gpu, tmp_path, monkeypatch, capsys, fails):
    if fails == "tests":
        bad = {"failed": 1, "failures": [{"test": "test_a", "message": "no"}]}
        monkeypatch.setattr(gpu_tests, "run_tests", lambda *_: bad)
    else:
        sound = sections.run_section

        def section(results, name, *arguments, **options):
            sound(results, name, *arguments, **options)
            if name == "costs":
                results.put(name, {"items": {"launches": {"error": "no"}}})

        monkeypatch.setattr(sections, "run_section", section)
    assert command.main(["--out", str(tmp_path)]) == 1
    assert "FAILED: " in capsys.readouterr().err
    assert [name for name, *_ in gpu if name != "t"][-1] == "models"


def test_all_of_it_fits_into_eight_minutes():
    longest = command.TOTAL_S + sections.GRACE_S
    assert longest < 8 * 60 - 10
    before = command.TESTS_S + sum(s.seconds for n, s in sections.SECTIONS.items() if n != "models")
    rows = sections.SECTIONS["models"]
    assert command.TOTAL_S - before >= len(rows.items) * rows.reserve


JUNIT = """<?xml version="1.0"?>
<testsuites><testsuite name="pytest">
<testcase classname="tests.gpu.test_a" name="one"/>
<testcase classname="tests.gpu.test_a" name="two"><failure message="assert 1 == 2">x</failure>
</testcase>
<testcase classname="tests.gpu.test_a" name="three"><skipped message="not built"/></testcase>
<testcase classname="tests.gpu.test_a" name="four"><error message="fixture"/></testcase>
</testsuite></testsuites>
"""


def test_tests_are_counted(tmp_path):
    (tmp_path / "tests.xml").write_text(JUNIT)
    assert gpu_tests.counts(tmp_path / "tests.xml") == {
        "passed": 1, "failed": 2, "skipped": 1,
        "failures": [
            {"test": "tests.gpu.test_a::two", "message": "assert 1 == 2"},
            {"test": "tests.gpu.test_a::four", "message": "fixture"},
        ],
    }  # fmt: skip


def pytest_that(monkeypatch, does):
    monkeypatch.setattr(gpu_tests.subprocess, "run", does)


def test_tests_that_do_not_end_or_do_not_begin(tmp_path, monkeypatch):
    def too_long(*arguments, timeout, **options):
        raise subprocess.TimeoutExpired("pytest", timeout)

    def no_pytest(*arguments, **options):
        return subprocess.CompletedProcess(arguments, 4)

    (tmp_path / "tests.xml").write_text(JUNIT)  # of an earlier run
    pytest_that(monkeypatch, too_long)
    assert "150 s" in gpu_tests.run_tests(tmp_path, 150)["error"]
    pytest_that(monkeypatch, no_pytest)
    assert "status 4" in gpu_tests.run_tests(tmp_path, 150)["error"]


def test_how_tests_are_run(tmp_path, monkeypatch):
    def ran(command, cwd, env, **options):
        assert "tests/gpu" in command
        assert "TRITON_INTERPRET" not in env  # kernels are to be compiled
        (tmp_path / "tests.xml").write_text(JUNIT)
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    pytest_that(monkeypatch, ran)
    assert gpu_tests.run_tests(tmp_path, 150)["status"] == 1


def test_where_nvml_does_not_answer():
    silent = nvml.Nvml()
    assert silent.missing
    assert silent.energy_mj() is None
    assert set(silent.clocks().values()) == {None}
    assert silent.limits()["nvml_missing"] == silent.missing


def test_commit():
    assert environment.commit()
