"""Batches against OpenVINO: the batches, and the page."""

import json

import torch

from bench.cpu_batches import SIZES
from bench.cpu_batches import __main__ as command
from bench.cpu_batches.engines import batches
from bench.cpu_batches.page import markdown
from bench.cpu_texts import CUT, EXITS, NEVER

from .test_cpu_texts import RESULTS as OF_TEXTS


def engine(name, policy, seconds, layers=6.0):
    # The second round ran on a machine that was half as fast.
    turns = [seconds, 2 * seconds, seconds]
    return {
        "engine": name, "policy": policy, "way": f"way of {name}", "layers": layers,
        "differ": [0, 0, 1], "seconds": {str(size): turns for size in SIZES},
    }  # fmt: skip


RESULTS = {
    "rounds": 3,
    "texts": 384,
    "environment": OF_TEXTS["environment"],
    "engines": [
        engine("int8", NEVER, 1.0),
        engine("int8", EXITS, 0.625, 3.0),
        engine("OpenVINO fp32", NEVER, 6.0),
        engine("OpenVINO int8", NEVER, 2.0),
        engine("OpenVINO int8", CUT, 1.5, 4.0),
    ],
}


def test_throughput_is_compared_with_the_best_peer_at_full_depth():
    page = markdown(RESULTS)
    assert page.count("## Batches of") == len(SIZES)
    for row in (
        f"| int8 | {NEVER} | 384 | 2.00x (2.00 to 2.00) | 1.00x | 1.00 | 0 |",
        f"| int8 | {EXITS} | 614 | 3.20x (3.20 to 3.20) | 2.00x | 0.80 | 0 |",
        f"| OpenVINO int8 | {CUT} | 256 | 1.33x (1.33 to 1.33) | 1.50x | 0.89 | 0 |",
    ):
        assert row in page
        assert row[:-4] + " 1 |" in page  # of the last size


def test_the_page_is_made_again_from_the_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "RESULTS", tmp_path / "r.json")
    monkeypatch.setattr(command, "PAGE", tmp_path / "p.md")
    (tmp_path / "r.json").write_text(json.dumps(RESULTS))
    command.main(["--results"])
    assert (tmp_path / "p.md").read_text() == markdown(RESULTS)


def test_texts_are_padded_to_the_longest_of_their_batch():
    lengths = [3, 1, 2, 5, 4]
    singles = [
        {"input_ids": torch.full((1, n), n), "attention_mask": torch.ones(1, n).long()}
        for n in lengths
    ]
    made = batches(singles, 3)
    assert [batch["input_ids"].shape for batch in made] == [(3, 3), (2, 5)]
    assert made[0]["input_ids"].tolist() == [[3, 3, 3], [1, 0, 0], [2, 2, 0]]
    assert made[1]["attention_mask"].tolist() == [[1] * 5, [1, 1, 1, 1, 0]]
