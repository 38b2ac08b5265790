"""Early exit in packed layers against OpenVINO: the page, and the model that OpenVINO gets."""

import itertools
import json

import pytest
import torch

from bench.cpu_texts import CUT, EXITS, NEVER, OWN, PEERS, PRECISIONS
from bench.cpu_texts import __main__ as command
from bench.cpu_texts.export import AtDepth
from bench.cpu_texts.page import JUDGE, headline, markdown, rows
from tests.models import inputs_for, tiny_model

LAYERS = {NEVER: 6.0, EXITS: 3.0, CUT: 4.0}


def engine(name, policy):
    # The second round ran on a machine that was half as fast.
    ms = LAYERS[policy] * (2.0 if name == JUDGE else 1.0)
    return {
        "engine": name, "policy": policy, "way": f"way of {name}", "accuracy": 0.79,
        "layers": LAYERS[policy], "layers_timed": LAYERS[policy] * 0.8,
        "exits_changed": 3, "answers_changed": 2,
        "ms": [[ms, ms], [2 * ms, 2 * ms], [ms, ms]],
    }  # fmt: skip


RESULTS = {
    "rounds": 3,
    "texts": 4000,
    "environment": {
        "date": "2026-01-02T03:04:05+00:00", "commit": "abc", "cpu": "Some CPU", "cpu_count": 2,
        "threads": 2, "flags": ["avx2"], "load": 0.1, "versions": {"torch": "2.13.0"},
    },
    "engines": [
        engine(name, policy)
        for name, policy in itertools.product((OWN, *PRECISIONS, *PEERS), LAYERS)
        if not (name in PEERS and policy == EXITS)
    ],
}  # fmt: skip


def test_times_are_compared_within_a_round():
    by_name = {(row.found["engine"], row.found["policy"]): row for row in rows(RESULTS)}
    assert by_name["int8", NEVER].against(by_name[JUDGE, NEVER].found) == (0.5, 0.5, 0.5)
    assert by_name["int8", EXITS].cells == [
        EXITS, "int8", "0.7900", "3", "2", "2.00x", "3.00", "0.25 (0.25 to 0.25)", "0.80",
    ]  # fmt: skip


def test_the_headline_compares_with_both_depths_of_both_engines():
    lines = [line for line in headline(RESULTS) if line.startswith("-")]
    assert [line.split()[1] for line in lines] == ["0.25", "0.38", "0.50", "0.75"]
    assert f"of {JUDGE} at {CUT}" in lines[1]
    assert "after 2.40 layers on average, and all of them after 3.00" in headline(RESULTS)[-1]


def test_the_page_is_made_again_from_the_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "RESULTS", tmp_path / "r.json")
    monkeypatch.setattr(command, "PAGE", tmp_path / "p.md")
    (tmp_path / "r.json").write_text(json.dumps(RESULTS))
    command.main(["--results"])
    text = (tmp_path / "p.md").read_text()
    assert text == markdown(RESULTS)
    assert "Some CPU" in text
    assert text.count(f"| {CUT} |") == 6
    assert "- int8: way of int8" in text


@pytest.mark.parametrize("layers", [1, 3, 4])
@torch.no_grad()
def test_a_model_cut_at_a_depth_gives_the_answers_of_that_exit(layers):
    model = tiny_model(head="pooler")
    inputs = inputs_for(model, 1)
    wanted = model(**inputs).exit_logits[layers - 1]
    torch.testing.assert_close(AtDepth(model, layers)(**inputs), wanted)


def test_rounds_below_one_are_refused(capsys):
    with pytest.raises(SystemExit):
        command.main(["--rounds", "0"])
    assert "--rounds must be 1 or more, got 0" in capsys.readouterr().err
