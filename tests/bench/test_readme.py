"""The README says what the committed report says, and its code runs."""

import re

import torch

from bench import readme
from tests.models import inputs_for, tiny_model


def test_readme_has_the_committed_figures():
    text = readme.README.read_text()
    assert readme.rewritten(text, readme.reports(), readme.engines()) == text


def test_a_changed_figure_would_be_noticed():
    of_task = readme.reports()
    of_task["tweets"]["splits"]["BEEM-A"]["accuracy"]["median"] += 0.01
    text = readme.README.read_text()
    assert readme.rewritten(text, of_task, readme.engines()) != text
    engines = readme.engines()
    engines["engines"][0]["accuracy"] += 0.01
    assert readme.rewritten(text, readme.reports(), engines) != text


def test_the_python_of_the_readme_runs_from_top_to_bottom(tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", readme.README.read_text(), re.DOTALL)
    assert len(blocks) >= 3
    (tmp_path / "docs").symlink_to(readme.ROOT / "docs")
    monkeypatch.chdir(tmp_path)
    model = tiny_model()
    batch = inputs_for(model, 8)
    names = {
        "hf_model": model.backbone,
        "train": lambda model: None,
        "validation_loader": [{**batch, "labels": torch.arange(8) % 3}],
        "batch": batch,
    }
    for block in blocks:
        exec(block, names)
    assert (tmp_path / "my-model" / "config.json").exists()
