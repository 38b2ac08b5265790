"""Text classification data: tables of texts and labels, and their tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, load_dataset
from transformers import PreTrainedTokenizerBase

from eefast.rows import FORMATS, read_rows


def load_table(source: str, split: str, text: str, label: str) -> Dataset:
    """Texts and labels from a local CSV or JSON file, or from a dataset by name.

    In a CSV file only an empty cell is missing: "None", "null", "NA" and "nan" are texts and class
    names like any others. A JSON file holds a list of objects, or one object a line.

    Args:
        source: a file (.csv, .json, .jsonl), or a name as `datasets.load_dataset` takes it, with
            ":" before a configuration ("glue:sst2").
        split: the split to take of a named dataset; files have one only.
        text: column of the texts.
        label: column of the labels: names or numbers, all of one type.

    Returns:
        A dataset with the columns `text` and `label`; labels of a CSV file are strings.

    Raises:
        FileNotFoundError, ValueError: no such file, split or column, or something else in it.
    """
    if text == label:
        raise ValueError(f"texts and labels must be two columns, got {text!r} for both")
    path = Path(source)
    is_file = path.suffix.lower() in FORMATS
    if path.is_dir() or (path.exists() and not is_file):
        raise ValueError(
            f"data must be a file ({', '.join(FORMATS)}) or the name of a dataset; got {source!r}, "
            f"a {'folder' if path.is_dir() else 'file of another kind'}"
        )
    if is_file:
        columns = _columns(path)
        names = list(columns)
    else:
        name, _, configuration = source.partition(":")
        columns = load_dataset(name, configuration or None, split=split)
        names = columns.column_names
    for column in (text, label):
        if column not in names:
            raise ValueError(
                f"{source} has no column {column!r}, only {names}: name those of the texts and of "
                "the labels (--text-column, --label-column)"
            )
    texts, labels = list(columns[text]), list(columns[label])
    if not texts:
        raise ValueError(f"{source} holds no rows")
    _check(f"{source}: column {text!r}", texts, (str,), "texts")
    if all(map(_NUMBER.fullmatch, texts)):
        raise ValueError(f"{source}: column {text!r} must hold texts; got numbers, {texts[0]!r}")
    one_type = tuple(kind for kind in _LABELS if kind is type(labels[0])) or _LABELS
    _check(f"{source}: column {label!r}", labels, one_type, "names or numbers, all of one type")
    if is_file:
        return Dataset.from_dict({"text": texts, "label": labels})
    table = columns.select_columns([text, label])  # its features may name the classes
    wanted = {text: "text", label: "label"}
    return table.rename_columns({k: v for k, v in wanted.items() if k != v})


_LABELS = (str, int, bool, float)


def _columns(path: Path) -> Any:
    rows = read_rows(path)
    missing = ("",) if path.suffix.lower() == ".csv" else ()  # in JSON there is null
    return {
        name: [None if row.get(name) in missing else row.get(name) for row in rows]
        for name in dict.fromkeys(name for row in rows for name in row)
    }


def _check(where: str, values: list[Any], kinds: tuple[type, ...], wanted: str) -> None:
    for row, value in enumerate(values, 1):
        if value is None:
            raise ValueError(f"{where} is empty in row {row}")
        if type(value) not in kinds:
            raise ValueError(f"{where} must hold {wanted}; got {value!r} in row {row}")


def class_names(table: Dataset) -> list[str]:
    """The classes of a table: those its features name, otherwise the distinct labels, sorted.

    Raises:
        ValueError: fewer than two, or numbers that are not whole.
    """
    feature = table.features["label"]
    if isinstance(feature, ClassLabel):
        return list(feature.names)
    names = sorted(map(str, table.unique("label")))
    whole = all(map(_WHOLE.fullmatch, names))
    if len(names) < 2 or (not whole and all(map(_NUMBER.fullmatch, names))):
        raise ValueError(f"labels must be at least two classes, names or integers; got {names[:5]}")
    return sorted(names, key=int) if whole else names


_WHOLE = re.compile(r"-?\d+")
_NUMBER = re.compile(r"-?[\d.]+(e[-+]?\d+)?", re.IGNORECASE)


def encode(
    table: Dataset, tokenizer: PreTrainedTokenizerBase, names: Sequence[str], max_length: int | None
) -> Dataset:
    """Token ids and class numbers: columns of the tokenizer, and `labels`.

    Texts of more than `max_length` tokens are cut; None: none is.

    Raises:
        ValueError: a label that is not among `names`.
    """
    feature = table.features["label"]
    number = {name: i for i, name in enumerate(names)}

    def encode_batch(batch: dict[str, list[Any]]) -> dict[str, Any]:
        labels = batch["label"]
        if isinstance(feature, ClassLabel):  # the column's own numbers
            labels = feature.int2str(labels)
        unknown = sorted({str(label) for label in labels} - number.keys())
        if unknown:
            raise ValueError(f"labels must be among {list(names)}, got {unknown}")
        labels = [number[str(label)] for label in labels]
        cut = {"truncation": max_length is not None, "max_length": max_length}
        tokens = tokenizer(batch["text"], **cut)
        return {**tokens, "labels": labels}

    return table.map(encode_batch, batched=True, remove_columns=table.column_names)
