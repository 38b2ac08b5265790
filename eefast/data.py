"""Text classification data: tables of texts and labels, and their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, load_dataset
from datasets.exceptions import DatasetGenerationError
from transformers import PreTrainedTokenizerBase

TABLE_FORMATS = {".csv": "csv", ".json": "json", ".jsonl": "json"}


def load_table(source: str, split: str, text: str, label: str) -> Dataset:
    """Texts and labels from a local CSV or JSON file, or from a dataset by name.

    Args:
        source: a file (.csv, .json, .jsonl), or a name as `datasets.load_dataset` takes it, with
            ":" before a configuration ("glue:sst2").
        split: the split to take of a named dataset; files have one only.
        text: column of the texts.
        label: column of the labels.

    Returns:
        A dataset with the columns `text` and `label`.

    Raises:
        FileNotFoundError, ValueError: no such file, split or column, or nothing in it.
    """
    path = Path(source)
    if text == label:
        raise ValueError(f"texts and labels must be two columns, got {text!r} for both")
    if path.suffix in TABLE_FORMATS:
        if not path.exists():
            raise FileNotFoundError(f"no file {source}")
        try:
            table = load_dataset(TABLE_FORMATS[path.suffix], data_files=str(path), split="train")
        except (DatasetGenerationError, ValueError) as error:
            reason = error.__cause__ or error
            raise ValueError(f"{source} holds no rows, or cannot be read: {reason}") from None
    else:
        name, _, configuration = source.partition(":")
        table = load_dataset(name, configuration or None, split=split)
    for column in (text, label):
        if column not in table.column_names:
            raise ValueError(f"{source} has no column {column!r}, only {table.column_names}")
    if not len(table):
        raise ValueError(f"{source} holds no rows")
    for column in (text, label):
        empty = next((i for i, value in enumerate(table[column], 1) if value is None), None)
        if empty is not None:
            raise ValueError(f"{source}: column {column!r} is empty in row {empty}")
    if not isinstance(table[text][0], str):
        raise ValueError(f"{source}: column {text!r} must hold texts, got {table[text][0]!r}")
    table = table.select_columns([text, label])
    return table.rename_columns({k: v for k, v in {text: "text", label: "label"}.items() if k != v})


def class_names(table: Dataset) -> list[str]:
    """The classes of a table: those its features name, otherwise the distinct labels, sorted."""
    feature = table.features["label"]
    if isinstance(feature, ClassLabel):
        return list(feature.names)
    labels = sorted(table.unique("label"))
    if isinstance(labels[0], float) or len(labels) < 2:
        raise ValueError(
            f"labels must be at least two classes, names or integers; got {labels[:5]}"
        )
    return [str(label) for label in labels]


def encode(
    table: Dataset, tokenizer: PreTrainedTokenizerBase, names: Sequence[str], max_length: int
) -> Dataset:
    """Token ids and class numbers: columns of the tokenizer, and `labels`.

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
        tokens = tokenizer(batch["text"], truncation=True, max_length=max_length)
        return {**tokens, "labels": labels}

    return table.map(encode_batch, batched=True, remove_columns=table.column_names)
