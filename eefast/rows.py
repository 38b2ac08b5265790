"""Rows of CSV and JSON files, as they are: nothing is guessed, and no cell is a number."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, TextIO

FORMATS = (".csv", ".json", ".jsonl")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a .csv file, as strings, or of a .json or .jsonl file; one or more.

    A JSON file holds one object a line, or a list of objects.

    Raises:
        FileNotFoundError, ValueError: no such file, another format, or no rows.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"{path} must be a .csv, .json or .jsonl file")
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = _read_csv(file) if suffix == ".csv" else _read_json(file)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be UTF-8, save it as that: {error}") from None
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if not rows:
        raise ValueError(f"{path} holds no rows")
    return rows


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
    rows: list[dict[str, Any]]
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
