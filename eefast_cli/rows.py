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
    from eefast.rows import read_rows as read

    rows = read(path)
    columns = columns_of(rows)
    if text not in columns:
        raise ValueError(f"{path} has no column {text!r}, only {columns}: give --text-column")
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
    return path.suffix.lower() == ".csv"
