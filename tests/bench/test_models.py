"""The command that writes docs/models.md."""

import pytest
import torch

from bench.models import __main__ as command
from bench.models.check import check
from eefast.backbones import GenericBackbone


@pytest.mark.parametrize("family", ["gpt2", "convnext", "wav2vec2"])
def test_families_of_each_kind_pass(family):
    assert check(family)["outcome"] == ""


def test_a_wrong_walk_is_found(monkeypatch):
    right = GenericBackbone.layer

    def wrong(self, index, hidden, context):
        after = right(self, index, hidden, context)
        return after + torch.linspace(0, 1, after.shape[-1]) if len(hidden) == 1 else after

    monkeypatch.setattr(GenericBackbone, "layer", wrong)
    assert "layer 1: a sample alone differs from three" in check("gpt2")["outcome"]


def test_the_page_counts_what_works_and_says_why_the_rest_does_not():
    rows = [{"model": "bert", "outcome": ""}, {"model": "xlm", "outcome": "no | list"}]
    page = command.page({row["model"]: row for row in rows})
    assert "## Text: 1 of 2" in page
    assert "no \\| list" in page
    assert torch.__version__ in page


def test_results_are_kept(tmp_path):
    path = tmp_path / "results.jsonl"
    assert command._kept(path) == {}
    path.write_text('{"model": "a", "outcome": "x"}\n{"model": "a", "outcome": ""}\n')
    assert command._kept(path) == {"a": {"model": "a", "outcome": ""}}
