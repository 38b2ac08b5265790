"""`eefast predict`: texts and files, what the answers are called, and what an end leaves."""

import csv
import json

import pytest

from eefast import MultiExitModel, compile
from eefast.policies import Budgeted, Confidence
from eefast.prediction import predict
from eefast_cli.common import load


@pytest.fixture
def reviews(folder):
    path = folder / "reviews.csv"
    path.write_text("id,text\n1,the good film\n2,bad bad book\n3,very good\n")
    return path


def stored(model_folder, *policies):
    model = MultiExitModel.from_pretrained(model_folder)
    model.config.policies.clear()
    for policy in policies:
        model.set_policy(policy)
    model.save_pretrained(model_folder)


def table(text):
    return list(csv.DictReader(text.splitlines()))


def test_texts_are_answered_with_label_score_and_layer(shell, model_folder):
    code, out, _ = shell("predict", model_folder, "the good film", "[bold]bad[/bold]")
    model, tokenizer = load(model_folder)
    answers = answered(model, tokenizer, ["the good film", "[bold]bad[/bold]"])
    assert code == 0
    assert out.splitlines() == [
        f"after layer {answer.exit_layer}: {answer.label} ({answer.score:.2f})  {text}"
        for text, answer in answers
    ]


def answered(model, tokenizer, texts):
    fast = compile(model, "confidence")
    return list(zip(texts, predict(fast, tokenizer, texts), strict=True))


def test_rows_keep_their_columns_and_get_three_more(shell, model_folder, reviews):
    output = reviews.with_name("out.csv")
    printed = shell("predict", model_folder, "--file", reviews)
    code, out, err = shell("predict", model_folder, "--file", reviews, "--output", output)
    assert (code, out, err) == (0, "", f"3 rows in {output}\n")
    assert printed == (0, output.read_text(), "")
    rows = table(output.read_text())
    assert list(rows[0]) == ["id", "text", "label", "score", "exit_layer"]
    assert [row["id"] for row in rows] == ["1", "2", "3"]
    model, tokenizer = load(model_folder)
    for (_, answer), row in zip(
        answered(model, tokenizer, [row["text"] for row in rows]), rows, strict=True
    ):
        assert (row["label"], int(row["exit_layer"])) == (answer.label, answer.exit_layer)
        assert float(row["score"]) == pytest.approx(answer.score, abs=1e-6)


def test_names_that_the_file_has_already_are_prefixed(shell, model_folder, folder):
    path = folder / "labelled.jsonl"
    path.write_text('{"text": "good", "label": 1}\n')
    _, out, _ = shell("predict", model_folder, "--file", path)
    row = json.loads(out)
    assert list(row) == [
        "text", "label", "predicted_label", "predicted_score", "predicted_exit_layer",
    ]  # fmt: skip
    assert row["label"] == 1
    path.write_text('{"text": "good", "label": 1, "predicted_score": 0}\n')
    code, _, err = shell("predict", model_folder, "--file", path)
    assert code == 2
    assert "no names are left" in err


@pytest.mark.parametrize(
    ("policies", "asked", "layer"),
    [
        ([Budgeted(1)], (), 1),
        ([Confidence(threshold=0.1), Budgeted(2)], ("--policy", "budgeted"), 2),
        ([Budgeted(1)], ("--policy", "never"), 2),
    ],
)
def test_the_stored_policy_is_used_unless_one_is_asked_for(
    shell, model_folder, policies, asked, layer
):
    stored(model_folder, *policies)
    code, out, err = shell("predict", model_folder, *asked, "the good film")
    assert (code, out.split(":")[0]) == (0, f"after layer {layer}")
    assert not err


def test_of_several_stored_policies_one_must_be_named(shell, model_folder):
    stored(model_folder, Budgeted(1), Confidence(threshold=0.5))
    code, _, err = shell("predict", model_folder, "the good film")
    assert code == 2
    assert "--policy must name one of the stored policies: ['budgeted', 'confidence']" in err


@pytest.mark.parametrize(
    "stop", [KeyboardInterrupt, ValueError("odd text"), OSError(28, "disk full")]
)
def test_finished_rows_stay_when_it_stops_halfway(shell, model_folder, reviews, monkeypatch, stop):
    def stops_after_two(*args, **kwargs):
        answers = predict(*args, **kwargs)
        yield next(answers)
        yield next(answers)
        raise stop

    monkeypatch.setattr("eefast.prediction.predict", stops_after_two)
    output = reviews.with_name("out.csv")
    output.write_text("of another run")
    code, _, err = shell("predict", model_folder, "--file", reviews, "--output", output)
    part = reviews.with_name("out.csv.part")
    assert [row["id"] for row in table(part.read_text())] == ["1", "2"]
    assert output.read_text() == "of another run"
    again = shell("predict", model_folder, "--file", reviews, "--output", output)
    assert again[0] == 2
    assert "holds rows of another run" in again[2]
    assert [row["id"] for row in table(part.read_text())] == ["1", "2"]
    assert len(err.splitlines()) == 1
    if stop is KeyboardInterrupt:
        assert (code, err) == (130, f"interrupted: the finished rows are in {part}\n")
    elif isinstance(stop, OSError):
        assert (code, err) == (2, f"error: [Errno 28] disk full: '{part}'\n")
    else:
        assert (code, err) == (2, "error: odd text\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give texts or --file"),
        (("a text", "--file", "{reviews}"), "give texts or --file"),
        (("a text", "--output", "out.csv"), "--output needs --file"),
        (("--file", "{reviews}", "--output", "out.jsonl"), "--output must end with .csv"),
        (("--file", "{reviews}", "--output", "{folder}.csv"), "must be a file"),
        (("--file", "{reviews}", "--text-column", "words"), "has no column 'words'"),
        (("--file", "{reviews}", "--output", "{folder}/none/a.csv"), "no folder {folder}/none"),
        (("{reviews}",), "is a file: to classify its rows, --file {reviews}"),
        (("--policy", "luck", "a text"), "unknown policy 'luck'"),
    ],
)
def test_wrong_arguments_are_one_line(shell, model_folder, reviews, folder, arguments, words):
    (folder.parent / (folder.name + ".csv")).mkdir()
    filled = [part.format(reviews=reviews, folder=folder) for part in arguments]
    code, out, err = shell("predict", model_folder, *filled)
    assert (code, out) == (2, "")
    assert words.format(reviews=reviews, folder=folder) in err
    assert len(err.splitlines()) == 1
