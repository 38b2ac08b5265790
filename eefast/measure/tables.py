"""Tables of figures: cells are strings, the first column names the row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, without a line break at its end.

    Raises:
        ValueError: a row has more or fewer cells than there are columns.
    """
    lines = [list(columns), *_checked(columns, rows)]
    text = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([text[0], "|---" * len(columns) + "|", *text[1:]])


def terminal_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """The same for a terminal: names on the left, figures on the right, nothing wrapped."""
    from rich.table import Table

    table = Table(title=title)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in _checked(columns, rows):
        table.add_row(*row)
    return table


def _checked(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[Sequence[str]]:
    rows = list(rows)
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"rows must have {len(columns)} cells, got {list(row)}")
    return rows
