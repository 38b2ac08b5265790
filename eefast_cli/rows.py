"""Rows of CSV and JSON files: read whole, written one by one."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

Row = Mapping[str, Any]


def read_rows(path: Path, text: str) -> list[dict[str, Any]]:
    """The rows of a .csv file, as strings, or of a .json or .jsonl file.

    A JSON file holds one object a line, or a list of objects.

    Args:
        path: the file, UTF-8.
        text: a column that must hold a text in every row.

    Raises:
        FileNotFoundError, ValueError: no such file, another format, no rows, or no texts.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    read = _read_csv if _is_csv(path) else _read_json
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = read(file)
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if not rows:
        raise ValueError(f"{path} holds no rows")
    columns = columns_of(rows)
    if text not in columns:
        raise ValueError(f"{path} has no column {text!r}, only {columns}")
    for number, row in enumerate(rows, 1):
        if not isinstance(row.get(text), str):
            got = row.get(text)
            raise ValueError(
                f"{path}: column {text!r} must hold texts, got {got!r} in row {number}"
            )
    return rows


def columns_of(rows: Sequence[Row]) -> list[str]:
    """The names of all columns, in the order in which they come up."""
    return list(dict.fromkeys(name for row in rows for name in row))


def row_writer(path: Path, file: TextIO, columns: Sequence[str]) -> Callable[[Row], None]:
    """What writes a row to `file` at once: CSV, or one JSON object a line, as `path` is named."""
    table = csv.DictWriter(file, columns, lineterminator="\n") if _is_csv(path) else None
    if table is not None:
        table.writeheader()

    def write(row: Row) -> None:
        if table is not None:
            table.writerow(row)
        else:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        file.flush()

    return write


def _is_csv(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".json", ".jsonl"):
        raise ValueError(f"{path} must be a .csv, .json or .jsonl file")
    return suffix == ".csv"


def _read_csv(file: TextIO) -> list[dict[str, Any]]:
    csv.field_size_limit(2**31 - 1)  # of a text; by default 131,072 characters
    lines = csv.reader(file, strict=True)
    columns = next(lines, [])
    if len(set(columns)) < len(columns):
        raise ValueError(f"two columns have one name: {columns}")
    rows = []
    for cells in filter(None, lines):
        if len(cells) != len(columns):
            raise ValueError(f"line {lines.line_num} has {len(cells)} cells, not {len(columns)}")
        rows.append(dict(zip(columns, cells, strict=True)))
    return rows


def _read_json(file: TextIO) -> list[dict[str, Any]]:
    text = file.read()
    if text.lstrip().startswith("["):
        rows = json.loads(text)
    else:
        rows = []
        for number, line in enumerate(text.split("\n"), 1):
            try:
                rows += [json.loads(line)] if line.strip() else []
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number} is not JSON: {error}") from None
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise ValueError(f"row {number} must be a JSON object, got {type(row).__name__}")
    return rows
