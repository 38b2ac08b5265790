"""Turns a pytest-benchmark file into docs/bench.md: medians, spread and ratios per case.

pytest bench --benchmark-only --benchmark-json=build/bench.json
python -m bench.table build/bench.json
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parents[1] / "docs" / "bench.md"


def markdown(results: dict[str, Any]) -> str:
    """One row per case; each variant's median in microseconds, with its interquartile range, and
    the ratio of the first variant's median to it."""
    cases: dict[str, dict[str, dict[str, float]]] = defaultdict(dict)
    for benchmark in results["benchmarks"]:
        variant = benchmark["name"].split("[")[1].split("-")[0]
        cases[benchmark["group"]][variant] = benchmark["stats"]
    variants = list(next(iter(cases.values())))
    baseline = variants[0]
    lines = [
        "# One exit step, fp32, one thread",
        "",
        f"Median (interquartile range) in us, and how many times faster than {baseline}. CPU: "
        f"{results['machine_info']['cpu'].get('brand_raw', 'unknown')}; "
        f"{results['datetime'][:10]}. Made by `make bench`.",
        "",
        "| case | " + " | ".join(variants) + " |",
        "|---" * (len(variants) + 1) + "|",
    ]
    for case, stats in cases.items():
        cells = []
        for variant in variants:
            median, iqr = stats[variant]["median"] * 1e6, stats[variant]["iqr"] * 1e6
            ratio = stats[baseline]["median"] / stats[variant]["median"]
            cells.append(f"{median:.1f} ({iqr:.1f}), {ratio:.1f}x")
        lines.append(f"| {case} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TARGET.write_text(markdown(json.loads(Path(sys.argv[1]).read_text())))
