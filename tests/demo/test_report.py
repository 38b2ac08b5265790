"""The demo's tables, from the committed report."""

import json

from rich.console import Console

from bench.readme import REPORT
from eefast.demo.report import results_tables, speed_rows


def test_speed_rows_are_the_reports_figures():
    report = json.loads(REPORT.read_text())
    rows = {row[0]: row[1:] for row in speed_rows(report)}
    assert list(rows) == [*(row["name"] for row in report["policies"]), "transformers"]
    beem, full = report["policies"][0], report["full_depth"]
    assert rows["BEEM-A"] == [
        f"{beem['layer_speedup_timed']:.2f}x", f"{beem['wall_clock_speedup_vs_never']:.2f}x",
        f"{beem['wall_clock_speedup']:.2f}x", f"{beem['p50_ms']:.2f}", f"{beem['p90_ms']:.2f}",
    ]  # fmt: skip
    assert rows["transformers"][-1] == f"{full['p90_ms']:.2f}"


def test_both_tables_fit_a_terminal_of_eighty_columns():
    report = json.loads(REPORT.read_text())
    console = Console(width=80)
    with console.capture() as said:
        console.print(*results_tables(report))
    text = said.get()
    assert "4000 test tweets" in text
    assert "…" not in text
    assert all(str(count) in text for count in report["policies"][0]["exit_histogram"])
