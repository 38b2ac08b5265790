"""The README says what the committed report says, and its code runs."""

import json
import re

import pytest
import torch

from bench import readme
from tests.models import inputs_for, tiny_model


def test_readme_has_the_committed_figures():
    report = json.loads(readme.REPORT.read_text())
    assert readme.rewritten(readme.README.read_text(), report) == readme.README.read_text()


def test_a_changed_figure_would_be_noticed():
    report = json.loads(readme.REPORT.read_text())
    report["policies"][0]["accuracy"] += 0.01
    assert readme.rewritten(readme.README.read_text(), report) != readme.README.read_text()


def python_blocks():
    return re.findall(r"```python\n(.*?)```", readme.README.read_text(), re.DOTALL)


@pytest.mark.parametrize("block", python_blocks())
def test_every_python_block_of_the_readme_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = tiny_model()
    batch = inputs_for(model, 8)
    loader = [{**batch, "labels": torch.arange(8) % 3}]
    names = {
        "hf_model": model.backbone, "model": model, "train": lambda model: None,
        "validation_loader": loader, "batch": batch,
    }  # fmt: skip
    exec(block, names)
