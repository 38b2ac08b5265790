"""Tables: the same rows for Markdown and for the terminal."""

import pytest
from rich.console import Console

from eefast.measure import markdown_table, terminal_table

COLUMNS, ROWS = ["policy", "ms"], [["BEEM", "1.00"], ["never", ""]]


def test_markdown():
    assert markdown_table(COLUMNS, ROWS).splitlines() == [
        "| policy | ms |",
        "|---|---|",
        "| BEEM | 1.00 |",
        "| never |  |",
    ]
    assert markdown_table(COLUMNS, []).splitlines() == ["| policy | ms |", "|---|---|"]


def test_terminal():
    console = Console(width=80)
    with console.capture() as said:
        console.print(terminal_table("latency", COLUMNS, ROWS))
    lines = said.get().splitlines()
    assert "latency" in lines[0]
    assert any("BEEM" in line and "1.00" in line for line in lines)


@pytest.mark.parametrize("write", [markdown_table, lambda *t: terminal_table("", *t)])
def test_a_row_that_does_not_fit_is_refused(write):
    with pytest.raises(ValueError, match=r"2 cells, got \['BEEM'\]"):
        write(COLUMNS, [["BEEM"]])
