"""The table of microbenchmarks: medians, spread and ratios from a pytest-benchmark file."""

from bench.table import markdown


def result(case, variant, median):
    return {
        "name": f"test_exit[{variant}-{case}]",
        "group": case,
        "stats": {"median": median, "iqr": median / 10},
    }


def test_ratios_are_taken_case_by_case():
    results = {
        "machine_info": {"cpu": {"brand_raw": "some processor"}},
        "datetime": "2026-01-02T03:04:05",
        "benchmarks": [
            result("small", "eager", 20e-6),
            result("large", "eager", 90e-6),
            result("small", "cpp", 4e-6),
            result("large", "cpp", 30e-6),
        ],
    }
    text = markdown(results)
    assert "some processor; 2026-01-02" in text
    assert "| case | eager | cpp |" in text
    assert "| small | 20.0 (2.0), 1.0x | 4.0 (0.4), 5.0x |" in text
    assert "| large | 90.0 (9.0), 1.0x | 30.0 (3.0), 3.0x |" in text
