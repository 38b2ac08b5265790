"""`eefast evaluate`: from a folder and a file to tables, JSON and a picture."""

import json
import sys

import pytest
from typer.testing import CliRunner

from eefast_cli.main import app, main
from tests.evaluation.made import write_model, write_texts

COLUMNS = ["--text-column", "review", "--label-column", "verdict"]


def run(*arguments):
    return CliRunner().invoke(
        app, ["evaluate", *map(str, arguments), *COLUMNS], catch_exceptions=False
    )


def test_results_lie_in_the_models_folder(tmp_path, monkeypatch):
    write_model(tmp_path / "model")
    data = write_texts(tmp_path / "held out.csv")
    result = run(tmp_path / "model", data, "--timed", 3)
    assert result.exit_code == 0
    folder = tmp_path / "model" / "evaluation" / "held-out"
    assert {file.name for file in folder.iterdir()} == {
        "evaluation.json", "trade_off.png", "trace.safetensors",
    }  # fmt: skip
    report = json.loads((folder / "evaluation.json").read_text())
    assert (report["data"], report["samples"], report["timed"]) == (str(data), 40, 3)
    for row in report["rows"]:
        assert row["name"] in result.output
        assert f"{row['accuracy']:.3f}" in result.output

    def never(*args, **kwargs):
        raise AssertionError("recorded again")

    monkeypatch.setattr("eefast.traces.cached.record_trace", never)
    run(tmp_path / "model", data, "--timed", 1)


def test_another_folder_and_a_model_without_policies(tmp_path):
    write_model(tmp_path / "model", policies=())
    data = write_texts(tmp_path / "data.csv")
    result = run(tmp_path / "model", data, "--timed", 1, "--output", tmp_path / "out")
    assert "the model holds no policy; see: eefast calibrate" in result.output
    assert (tmp_path / "out" / "evaluation.json").exists()
    assert not (tmp_path / "model" / "evaluation").exists()


@pytest.mark.parametrize(
    ("model", "data", "words"),
    [
        ("nothing", "data.csv", "no model folder"),
        ("model", "nothing.csv", "no file"),
        ("model", "other.csv", "labels must be among"),
    ],
)
def test_errors_are_one_line(tmp_path, monkeypatch, capsys, model, data, words):
    write_model(tmp_path / "model")
    write_texts(tmp_path / "data.csv")
    write_texts(tmp_path / "other.csv", ("up", "down"))
    paths = [str(tmp_path / name) for name in (model, data)]
    monkeypatch.setattr(sys, "argv", ["eefast", "evaluate", *paths, *COLUMNS])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    error = " ".join(capsys.readouterr().err.split())
    assert words in error
    assert "Traceback" not in error


def test_the_output_must_be_a_folder(tmp_path, monkeypatch, capsys):
    data = write_texts(tmp_path / "data.csv")
    call = ["eefast", "evaluate", str(tmp_path / "model"), str(data), "--output", str(data)]
    monkeypatch.setattr(sys, "argv", call)
    with pytest.raises(SystemExit):
        main()
    assert f"--output must be a folder, {data} is a file" in capsys.readouterr().err
