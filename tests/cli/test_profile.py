"""`eefast profile`: a table of every layer and exit step, and a file that calibration reads."""

import pytest

from eefast.calibration.costs import Costs


def test_lengths_are_timed_and_costs_written(model_folder, shell, tmp_path):
    output = tmp_path / "costs.json"
    code, out, err = shell(
        "profile", model_folder, "--length", 4, "--length", 9, "--rounds", 2, "--output", output
    )
    assert (code, err) == (0, "")
    for word in ("4 tokens", "9 tokens", "exit step", "batch 1, cpu", "threads, float32", "impl"):
        assert word in out
    table = [line.split() for line in out.splitlines() if line.strip().startswith(("│", "|"))]
    assert [row[1] for row in table] == ["1", "2", "all"]
    costs = Costs.load(output)
    assert (len(costs.layers), len(costs.exits), costs.unit) == (2, 2, "ms")
    assert min(*costs.layers, *costs.exits) > 0


def test_texts_have_their_own_lengths(model_folder, shell, tmp_path):
    texts = ["the good film", "good " * 100]  # the second is cut at what the model takes
    output = tmp_path / "costs.json"
    options = ("--batch-size", 3, "--rounds", 1, "--policy", "beem", "--output", output)
    code, out, err = shell("profile", model_folder, *texts, *options)
    assert (code, err) == (0, "")
    assert "5 tokens" in out
    assert "16 tokens" in out
    assert "batch 3" in out
    assert "exit steps of 'beem'" in out
    assert Costs.load(output).unit == "ms per call of 3"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give texts or --length, one of the two"),
        (("good film", "--length", 3), "give texts or --length, one of the two"),
        (("--length", 17), "got 17 tokens per sequence; wanted 1 to 16"),
        (("--length", 3, "--policy", "never"), "policy 'never' computes 1 of 2 exits"),
        (("--length", 3, "--policy", "no"), "unknown policy 'no'"),
        (("--length", 3, "--output", "no/costs.json"), "--output: no folder no"),
        (("--length", 3, "--output", "/"), "--output must be a file, / is a folder"),
    ],
)
def test_what_cannot_be_timed_is_refused_in_one_line(model_folder, shell, arguments, words):
    code, out, err = shell("profile", model_folder, *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert "Traceback" not in err
