"""From results to Markdown, and what the overhead model makes of measured constants."""

import copy
from dataclasses import replace

import pytest

from bench.gpu.computed import computed_us, constants, decision_us, measured_constants
from bench.gpu.models import conclusions
from bench.gpu.report import failures, markdown
from bench.overhead_model import PUBLISHED, call_us


def timed(us, **more):
    wall = {"us": us, "p10_us": us - 1, "p90_us": us + 2, "calls": 90}
    return {"wall": wall, "device": wall | {"us": us - 10}, "ready_s": 1.0, **more}


ROW = {
    "model": "BERT-base", "batch": 1, "length": 128, "dtype": "float16", "layers": 12,
    "depths": [6, 6, 5, 7], "layer_speedup": 2.0, "layer_host_us": 70.0, "clocks": None,
    "variants": {
        "sync": timed(1500.0), "runahead": timed(1400.0), "graph nested": timed(400.0),
        "graph flat": {"error": "RuntimeError: no IF | nodes\nhere"},
        "eager": timed(2500.0), "Never(), stream": timed(2400.0), "Never(), graph": timed(700.0),
        "one layer, graph": timed(150.0), "torch.compile": {"skipped": "no time left"},
    },
    "energy": {"graph nested": {"j": 0.1, "w": 250.0, "calls": 9, "s": 1.0}, "sync": None},
}  # fmt: skip
ROW |= conclusions(ROW)

COSTS = {
    "environment": {
        "date": "2026-01-02T03:04:05+00:00", "commit": "abc+", "device": "Some GPU",
        "compute_capability": "9.0", "multiprocessors": 132, "memory_gib": 79.1, "driver": "580.1",
        "max_sm_mhz": 1980, "max_memory_mhz": 2619, "power_limit_mw": 700000, "nvml_missing": None,
        "clocks_before": {"sm_mhz": 345, "memory_mhz": 2619}, "cuda": "13.0",
        "versions": {"torch": "2.11.0", "nvidia-ml-py": None}, "cpu": "Some CPU", "cpu_count": 16,
        "exit_step_cuda": "runs here", "if_nodes": "bindings",
    },
    "launches": {
        "op_host_us": 4.0, "graph_launch_host_us": 6.0, "graph_node_host_us": -0.01,
        "kernel_on_stream_us": 2.5, "kernel_in_graph_us": 2.0,
    },
    ".item()": {
        "item_us": {"us": 12.0}, "kernel_and_item_us": {"us": 17.0}, "copy_issue_host_us": 5.0,
        "copy_us": 1.5,
    },
    "polled flag": {"publish_host_us": {"us": 6.5}, "look_host_us": {"us": 0.5}},
    "exits in nodes, bindings": {
        "impl": "cuda", "exit_in_graph_us": 4.5, "node_us": {"nested, running": 1.5}, "errors": {},
    },
    "IF nodes, torch": {"skipped": "torch 2.13 or newer"},
}  # fmt: skip
STEPS = {
    "cuda, linear": [
        {"impl": "cuda", "head": "linear", "dtype": "float16", "batch": 1, "host_us": 3.0,
         "call_us": 9.0, "graph_us": 4.5},
        {"impl": "reference", "head": "linear", "dtype": "float16", "batch": 1, "host_us": 90.0,
         "call_us": 99.0, "graph_us": None},
    ],
    "cuda, vocabulary": {"error": "RuntimeError: bad"},
}  # fmt: skip
DATA = {
    "tests": {"passed": 600, "failed": 1, "skipped": 30, "status": 1, "failures": [
        {"test": "tests.gpu.test_x::test_y", "message": "1 != 2"}]},
    "costs": {"items": COSTS, "seconds": 40.0},
    "exit_steps": {"items": STEPS, "seconds": 50.0},
    "models": {"items": {"BERT-base, batch 1, length 128": ROW,
                         "MiniLM, batch 1, length 128": {"error": "its process ended"}}},
}  # fmt: skip


def line_with(text, *parts):
    (line,) = (line for line in text.splitlines() if all(part in line for part in parts))
    return line


def test_the_whole_report():
    text = markdown(DATA)
    assert "Some GPU" in text
    assert "580.1" in text
    assert "345 of 1980 MHz" in text
    assert "power limit 700.0 W" in text
    assert "nvidia-ml-py none" in text
    assert "600 passed, 1 failed, 30 skipped" in text
    rows = [line for line in text.splitlines() if line.startswith("| BERT-base, batch 1")]
    # 700 / 400 us of 2.0x fewer layers; sync is slower than the fastest of full depth.
    assert "Never(), graph | 2.00x | 0.47x, 0.23 | 0.50x, 0.25 | 1.75x, 0.88 |" in rows[0]
    assert "400 (399 to 402) | failed | 2500" in rows[1]
    assert rows[1].endswith("| - |")  # torch.compile
    assert "390" in rows[2]
    assert line_with(text, "graph nested", "100.00", "250")
    assert line_with(text, "| .item(): item |", "12.000")
    assert line_with(text, "exits in nodes, bindings: nested, running", "1.50")
    assert line_with(text, "| linear | float16 | 1 | reference | 90.0 | 99.0 | - |")
    assert "maximum" in text


def test_failures_and_what_was_left_out_are_said():
    failed = failures(DATA)
    assert len(failed) == 4
    text = markdown(DATA)
    assert all(f"- {line}" in text for line in failed)
    assert any("graph flat: RuntimeError: no IF / nodes here" in line for line in failed)
    assert any("test_y: 1 != 2" in line for line in failed)
    assert "IF nodes, torch: torch 2.13 or newer" in text
    assert "torch.compile: no time left" in text
    assert not any("torch.compile" in line for line in failed)


def test_failures_of_graphs_count():
    data = {"costs": {"items": {"IF nodes, torch": {"errors": {"flat, 2 nodes": "no"}}}}}
    assert failures(data) == ["costs, items, IF nodes, torch, flat, 2 nodes: no"]
    assert failures({"costs": {"items": {"IF nodes, torch": {"errors": {}}}}}) == []


def test_energy_that_was_not_read():
    data = copy.deepcopy(DATA)
    data["models"]["items"]["BERT-base, batch 1, length 128"]["energy"] = {"sync": None}
    assert "Energy: could not be read." in markdown(data)
    del data["models"]["items"]["BERT-base, batch 1, length 128"]["energy"]
    assert "Energy: could not be read." in markdown(data)


@pytest.mark.parametrize("missing", ["tests", "costs", "exit_steps", "models"])
def test_what_is_still_to_come(missing):
    markdown({name: value for name, value in DATA.items() if name != missing})
    markdown(DATA | {missing: {"items": {}}})
    assert "not known" in markdown({})
    assert "tests/gpu: no counts" in markdown({"tests": {"error": "not done after 150 s"}})


@pytest.mark.parametrize("item", COSTS)
def test_each_part_may_have_failed(item):
    for put in ({"error": "it died"}, {"skipped": "not there"}):
        data = copy.deepcopy(DATA)
        data["costs"]["items"][item] = put
        assert next(iter(put.values())) in markdown(data)


def test_measured_constants():
    found = measured_constants(COSTS, "bindings")
    assert found == pytest.approx({
        "op_us": 4.0, "graph_launch_us": 6.0, "graph_node_us": 0.0, "graph_gap_us": 0.8,
        "stream_gap_us": 0.5, "exit_us": 3.7, "copy_issue_us": 5.0, "copy_us": 1.5,
        "wait_us": 5.5, "news_us": 2.0, "node_us": 1.5,
    })  # fmt: skip
    assert constants(found).node_us == 1.5
    assert constants(found).null_us == PUBLISHED.null_us
    assert "node_us" not in measured_constants(COSTS, "torch")
    assert measured_constants({}, None) == {}


def test_computed_agrees_with_calls_that_follow_the_model():
    """Measured times made by the model itself, plus 100 us in graphs and 300 beside them."""
    here = replace(PUBLISHED, op_us=4.0, graph_launch_us=6.0, node_us=1.5)
    shape = dict(layers=12, layer_us=50.0, kernels_per_layer=15, constants=here)

    def of(runtime, beside, **more):
        return timed(call_us(runtime, **shape | more).total_us + beside)

    end = here.op_us + here.copy_issue_us + here.copy_us + here.wait_us
    row = {
        "layers": 12, "layer_us": 50.0, "layer_host_us": 60.0, "depths": [6, 6],
        "variants": {
            "Never(), graph": of("graph_full", 100), "Never(), stream": of("eager_full", 300 + end),
            "eager": of("eager_full", 300), "sync": of("sync", 300, exit_layer=6),
            "runahead": of("runahead", 300, exit_layer=6),
            "graph nested": of("graph", 100, exit_layer=6),
            "graph flat": of("graph_flat", 100, exit_layer=6),
        },
    }  # fmt: skip
    found = computed_us(row, here)
    assert len(found) == 6
    for name, us in found.items():
        assert us == pytest.approx(row["variants"][name]["wall"]["us"]), name
    wanted = call_us("graph", **shape, exit_layer=6).decision_us
    assert decision_us(row, "graph nested") == pytest.approx(wanted, abs=0.02)


def test_nothing_is_computed_without_a_layers_time():
    assert computed_us(ROW | {"layer_us": None}, PUBLISHED) == {}
    assert decision_us(ROW | {"layer_us": None}, "graph nested") is None
    assert decision_us(ROW, "graph flat") is None
