"""Data: tables of texts and labels, and class numbers."""

import json

import pytest
from datasets import ClassLabel, Dataset

from eefast.data import class_names, encode, load_table


def test_csv_and_json_files(tmp_path):
    (tmp_path / "a.csv").write_text("review,stars\ngood,1\nbad,0\nso so,0\n")
    table = load_table(str(tmp_path / "a.csv"), "train", "review", "stars")
    assert table.column_names == ["text", "label"]
    assert table["text"] == ["good", "bad", "so so"]
    assert class_names(table) == ["0", "1"]
    rows = [{"text": "good", "label": "yes"}, {"text": "bad", "label": "no"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert class_names(load_table(str(tmp_path / "a.jsonl"), "train", "text", "label")) == [
        "no", "yes",
    ]  # fmt: skip


def test_classes_that_are_numbers_are_sorted_as_numbers():
    table = Dataset.from_dict({"text": ["x"] * 3, "label": [10, 9, 2]})
    assert class_names(table) == ["2", "9", "10"]


def test_tables_that_do_not_fit(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.csv"):
        load_table(str(tmp_path / "missing.csv"), "train", "text", "label")
    (tmp_path / "a.csv").write_text("text,label\ngood,1\n")
    with pytest.raises(ValueError, match="has no column 'stars', only"):
        load_table(str(tmp_path / "a.csv"), "train", "text", "stars")


class Tokenizer:
    def __call__(self, texts, truncation, max_length):
        assert truncation
        return {"input_ids": [[len(word) for word in text.split()][:max_length] for text in texts]}


def test_encode_gives_tokens_and_class_numbers():
    table = Dataset.from_dict({"text": ["a bb ccc", "dd"], "label": ["yes", "no"]})
    encoded = encode(table, Tokenizer(), ["no", "yes"], max_length=2)
    assert encoded["labels"] == [1, 0]
    assert encoded["input_ids"] == [[1, 2], [2]]
    assert encoded.column_names == ["input_ids", "labels"]


def test_encode_takes_named_classes_by_number():
    table = Dataset.from_dict({"text": ["a", "b"], "label": [2, 0]})
    table = table.cast_column("label", ClassLabel(names=["x", "y", "z"]))
    assert encode(table, Tokenizer(), class_names(table), 4)["labels"] == [2, 0]


def test_encode_refuses_a_label_that_is_no_class():
    table = Dataset.from_dict({"text": ["a", "b"], "label": ["yes", "maybe"]})
    with pytest.raises(ValueError, match=r"labels must be among \['no', 'yes'\], got \['maybe'\]"):
        encode(table, Tokenizer(), ["no", "yes"], 4)


def test_class_numbers_of_another_order_are_translated():
    table = Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    table = table.cast_column("label", ClassLabel(names=["pos", "neg"]))
    assert encode(table, Tokenizer(), ["neg", "pos"], 4)["labels"] == [1, 0]


def test_names_of_datasets_are_taken_as_they_are(monkeypatch):
    asked = []

    def load(name, configuration=None, split=None):
        asked.append((name, configuration, split))
        return Dataset.from_dict({"text": ["a"], "label": [0]})

    monkeypatch.setattr("eefast.data.load_dataset", load)
    load_table("stanfordnlp/imdb", "train", "text", "label")
    load_table("glue:sst2", "validation", "text", "label")
    assert asked == [("stanfordnlp/imdb", None, "train"), ("glue", "sst2", "validation")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("text,label\n,1\nb,0\n", "column 'text' is empty in row 1"),
        ("text,label\na,1\nb,\n", "column 'label' is empty in row 2"),
        ("text,label\n1,1\n2,0\n", "column 'text' must hold texts, got 1"),
        ("text,label\n", "holds no rows"),
        ("", "holds no rows, or cannot be read"),
    ],
)
def test_files_with_holes(tmp_path, content, words):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(ValueError, match=words):
        load_table(str(tmp_path / "a.csv"), "train", "text", "label")


@pytest.mark.parametrize("labels", [[0.5, 1.5], ["same", "same"]])
def test_classes_must_be_two_or_more(labels):
    with pytest.raises(ValueError, match="at least two classes"):
        class_names(Dataset.from_dict({"text": ["a", "b"], "label": labels}))
