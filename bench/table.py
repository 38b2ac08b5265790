"""Turns a pytest-benchmark file into docs/bench.md: medians, spread and ratios per case.

pytest bench --benchmark-only --benchmark-json=build/bench.json
python -m bench.table build/bench.json
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from bench import ROOT
from eefast.measure import markdown_table, write_whole

TARGET = ROOT / "docs" / "bench.md"
TEXT = """\
# One exit step, fp32, one thread

Median (interquartile range) in us, and how many times faster than {baseline}. CPU: {cpu}; {date}. \
Made by `make bench`.

{table}
"""


def markdown(results: dict[str, Any]) -> str:
    """One row per case; each variant's median in microseconds, with its interquartile range, and
    the ratio of the first variant's median to it."""
    cases: dict[str, dict[str, dict[str, float]]] = defaultdict(dict)
    for benchmark in results["benchmarks"]:
        variant = benchmark["name"].split("[")[1].split("-")[0]
        cases[benchmark["group"]][variant] = benchmark["stats"]
    variants = list(next(iter(cases.values())))
    baseline = variants[0]
    rows = []
    for case, stats in cases.items():
        cells = []
        for variant in variants:
            median, iqr = stats[variant]["median"] * 1e6, stats[variant]["iqr"] * 1e6
            ratio = stats[baseline]["median"] / stats[variant]["median"]
            cells.append(f"{median:.1f} ({iqr:.1f}), {ratio:.1f}x")
        rows.append([case, *cells])
    cpu = results["machine_info"]["cpu"].get("brand_raw", "unknown")
    return TEXT.format(
        baseline=baseline,
        cpu=cpu,
        date=results["datetime"][:10],
        table=markdown_table(["case", *variants], rows),
    )


if __name__ == "__main__":
    write_whole(TARGET, markdown(json.loads(Path(sys.argv[1]).read_text())))
