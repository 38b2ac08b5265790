"""What the build refuses before it begins."""

import runpy
from pathlib import Path

import pytest
import setuptools


def test_an_old_setuptools_is_named(monkeypatch):
    monkeypatch.setattr(setuptools, "__version__", "65.5.0")
    with pytest.raises(SystemExit, match=r"setuptools>=77, and 65\.5\.0 is installed"):
        runpy.run_path(str(Path(__file__).parents[1] / "setup.py"))
