"""Where figures were made: this machine, and packages that are not installed."""

import os
import platform
from pathlib import Path

import pytest
import torch

from eefast.measure import host, processor, versions


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [("processor\t: 0\nmodel name\t: Some CPU: fast\nmodel name\t: Other\n", "Some CPU: fast"),
     ("Hardware\t: a board\n", "")],
)  # fmt: skip
def test_the_processors_name(monkeypatch, cpuinfo, name):
    monkeypatch.setattr(Path, "read_text", lambda path: cpuinfo)
    assert processor() == name


def test_a_system_without_cpuinfo(monkeypatch):
    def missing(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", missing)
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    assert processor() == "arm"


def test_host_and_versions():
    assert host() == {
        "threads": torch.get_num_threads(), "cpu": processor(), "cpu_count": os.cpu_count(),
    }  # fmt: skip
    found = versions("torch", "no-such-package")
    assert found == {
        "python": platform.python_version(), "torch": str(torch.__version__),
        "no-such-package": None,
    }  # fmt: skip
