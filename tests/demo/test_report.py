"""The demo's table and its sentence on fixed depth, from figures made by hand."""

import pytest

from eefast.demo.policies import CHOOSERS, EARLY_EXIT
from eefast.demo.report import against_fixed_depth, report_rows
from eefast.evaluation import NEVER, TRANSFORMERS


def spread(median):
    return {"median": median, "p10": median - 0.01, "p90": median + 0.01}


@pytest.fixture
def report():
    timing = {
        "layer_speedup": 1.4, "speedup_vs_never": 1.3, "speedup_vs_transformers": 1.35,
        "p50_ms": 7.125, "p90_ms": 9.5, "as_simulated": 6,
    }  # fmt: skip
    gains = {name: i / 100 for i, name in enumerate(EARLY_EXIT)}
    return {
        "rows": [{"name": n, "timing": timing} for n in (*CHOOSERS, NEVER, TRANSFORMERS)],
        "splits": {
            name: {
                "accuracy": spread(0.8),
                "layer_speedup": spread(1.5),
                "accuracy_gain": spread(gains.get(name, 9)),
                "speedup_gain": spread(1 + gains.get(name, 9)),
            }
            for name in (*CHOOSERS, NEVER)
        },
    }


def test_a_row_has_medians_with_their_spread_and_the_times_of_one_split(report):
    rows = report_rows(report)
    assert [row[0] for row in rows] == [*CHOOSERS, NEVER, TRANSFORMERS]
    assert rows[0][1:] == [
        "0.800 (0.790-0.810)", "1.50x (1.49-1.51)", "1.30x", "1.35x", "7.12", "9.50",
    ]  # fmt: skip


def test_the_sentence_names_the_least_and_the_most_that_is_gained(report):
    """Of the policies chosen by the rule; BEEM by Eq. 3 and fixed depth itself do not count."""
    text = against_fixed_depth(report)
    assert "gains +0.0 points (BEEM-A; -1.0 to +1.0) to +4.0 points (entropy; +3.0 to +5.0)" in text
    assert "it is 1.00x (BEEM-A; 0.99 to 1.01) to 1.04x (entropy; 1.03 to 1.05) as fast" in text
