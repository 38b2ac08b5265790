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


def test_a_file_is_read_whatever_its_name(tmp_path):
    (tmp_path / "data1.csv").write_text("text,label\nwrong,1\n")
    for name in ("data[1].csv", "data?.csv", "da*.csv", "**.csv", "UP.CSV", "a:b.csv"):
        (tmp_path / name).write_text(f"text,label\n{name},1\n")
        assert load_table(str(tmp_path / name), "train", "text", "label")["text"] == [name]


@pytest.mark.parametrize("word", ["None", "null", "NA", "nan", "N/A", "true", "01"])
def test_words_of_a_csv_file_are_words(tmp_path, word):
    (tmp_path / "a.csv").write_text(f"text,label\n{word},{word}\nb,1\n")
    table = load_table(str(tmp_path / "a.csv"), "train", "text", "label")
    assert table["text"] == [word, "b"]
    assert sorted(class_names(table)) == sorted(["1", word])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "text,label\n,1\nb,0\n", "column 'text' is empty in row 1"),
        ("a.csv", "text,label\na,1\nb,\n", "column 'label' is empty in row 2"),
        ("a.csv", "text,label\n1,1\n2,0\n", "column 'text' must hold texts; got numbers, '1'"),
        ("a.csv", "text,label\n", "holds no rows"),
        ("a.csv", "", "holds no rows"),
        ("a.csv", "text,label\na, b,1\nb,0\n", "cannot be read: line 2 has 3 cells, not 2"),
        ("a.json", '{"text": ["a"], "label": [1]}', r"must hold texts; got \['a'\] in row 1"),
        (
            "a.json",
            '{"text": "a", "label": [1]}',
            r"must hold names or numbers.*got \[1\] in row 1",
        ),
        ("a.json", '{\n"text": "a",\n"label": 1\n}', "line 1 is not JSON"),
        (
            "a.jsonl",
            '{"text": "a", "label": 1}\n{"text": "b", "label": "x"}',
            "column 'label' must hold names or numbers, all of one type; got 'x' in row 2",
        ),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": "b"}', "'label' is empty in row 2"),
        ("a.tsv", "text\tlabel\na\t1\n", "a file of another kind"),
    ],
)
def test_files_that_are_no_tables(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=words):
        load_table(str(tmp_path / name), "train", "text", "label")


def test_a_folder_is_no_table(tmp_path):
    for folder in (str(tmp_path), ""):
        with pytest.raises(ValueError, match=f"name of a dataset; got '{folder}', a folder"):
            load_table(folder, "train", "text", "label")


@pytest.mark.parametrize("labels", [[0.5, 1.5], ["1.5", "2"], ["same", "same"]])
def test_classes_must_be_two_or_more(labels):
    with pytest.raises(ValueError, match="at least two classes"):
        class_names(Dataset.from_dict({"text": ["a", "b"], "label": labels}))
