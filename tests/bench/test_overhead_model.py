"""The model of what runtimes cost: by hand, bounds, and that docs/overhead_model.md is current."""

import runpy
from dataclasses import fields, replace
from pathlib import Path
from typing import get_args

import pytest

from bench.overhead_model import PUBLISHED, Constants, Runtime, call_us, mean_us

ROOT = Path(__file__).parents[2]
NAMES = [constant.name for constant in fields(Constants)]
FREE = Constants(**dict.fromkeys(NAMES, 0.0))
WITH_EXITS = ("sync", "runahead", "graph", "graph_flat")
MODEL = dict(layers=12, layer_us=56.0, kernels_per_layer=4)


def total(runtime, **call):
    return call_us(runtime, **MODEL | call).total_us


@pytest.mark.parametrize("runtime", get_args(Runtime))
def test_only_layers_cost_where_nothing_else_does(runtime):
    cost = call_us(runtime, **MODEL, constants=FREE)
    assert cost.total_us == pytest.approx(12 * 56)
    assert (cost.layers_run, cost.layers_wasted, cost.decision_us) == (12, 0, 0)


@pytest.mark.parametrize("runtime", WITH_EXITS)
@pytest.mark.parametrize("exit_at", [1, 6, 12])
def test_early_exits_skip_the_rest(runtime, exit_at):
    cost = call_us(runtime, **MODEL, exit_layer=exit_at, constants=FREE, depth=0)
    assert cost.total_us == pytest.approx(exit_at * 56)
    assert (cost.layers_run, cost.layers_wasted) == (exit_at, 0)


def test_sync_by_hand():
    """Two stages: the GPU starts when it may, and the host continues when it knows the decision."""
    constants = replace(
        FREE, op_us=5, stream_gap_us=1, graph_gap_us=2, exit_us=3,
        copy_issue_us=6, copy_us=4, wait_us=7,
    )  # fmt: skip
    # Layer launched at 5, done at 25; exit from 28 to 31; copy until 35; known at 42. The second:
    # launched at 47, done at 67; exit from 70 to 73; copy until 77; known at 84.
    cost = call_us(
        "sync", layers=3, layer_us=20, kernels_per_layer=1, exit_layer=2, constants=constants
    )
    assert (cost.total_us, cost.waits) == (84, 2)
    assert cost.decision_us == (84 - (5 + 20 + 1 + 20)) / 2  # the same layers without exits


def test_sync_where_the_host_is_slower():
    """Launches at 10, 20 and 30 (the exit), each done 1 later; the copy arrives at 36 + 4."""
    constants = replace(FREE, op_us=10, exit_us=1, copy_issue_us=6, copy_us=4)
    cost = call_us("sync", layers=1, layer_us=2, kernels_per_layer=2, constants=constants)
    assert cost.total_us == 40


@pytest.mark.parametrize(("depth", "run", "waits"), [(0, 2, 2), (1, 3, 2), (2, 4, 1), (9, 4, 0)])
def test_run_ahead_by_hand(depth, run, waits):
    """Layers of 10, exits of 2, and a host that is never late: depth is what runs in vain."""
    constants = replace(FREE, exit_us=2, copy_us=1, wait_us=3)
    cost = call_us(
        "runahead", layers=4, layer_us=10, kernels_per_layer=1, exit_layer=2,
        constants=constants, depth=depth,
    )  # fmt: skip
    assert (cost.layers_run, cost.layers_wasted, cost.waits) == (run, run - 2, waits)
    # Depth 0 is sync: 2 stages of 13, a wait of 3 after each. Depth 1: the GPU never waits, and the
    # host knows at 26 + 3, while layer 3 runs. Deeper: all four run, the last without a copy.
    assert cost.total_us == {0: 32, 1: 39, 2: 51, 9: 51}[depth]


def test_graphs_by_hand():
    constants = replace(
        FREE, graph_launch_us=2, graph_node_us=0.5, graph_gap_us=1, exit_us=3, null_us=4, node_us=5
    )
    call = dict(layers=4, layer_us=20, kernels_per_layer=2, exit_layer=2, constants=constants)
    # 4 x (2 kernels, exit) and 3 nodes to launch; two layers with exit and node.
    assert call_us("graph", **call).total_us == 2 + 7.5 + 2 * (20 + 4 + 5)
    assert call_us("graph_flat", **call).total_us == 2 + 7.5 + 2 * (20 + 4 + 5) + 5
    # A setter kernel before each node, also before the one that a flat graph evaluates in vain.
    assert call_us("graph", **call, setter=True).total_us == 2 + 9 + 2 * (20 + 4 + 5 + 5)
    assert call_us("graph_flat", **call, setter=True).total_us == 2 + 9 + 2 * (20 + 4 + 10) + 10
    # There is no node after the last layer.
    assert call_us("graph", **call | dict(exit_layer=4)).total_us == 2 + 7.5 + 4 * 24 + 3 * 5
    assert call_us("graph_full", **call).total_us == 2 + 4 + 4 * 20
    # Against a graph of the two layers alone, of 4 nodes.
    assert call_us("graph", **call).decision_us == (67.5 - (2 + 2 + 40)) / 2


@pytest.mark.parametrize("layer_us", [668, 91, 56, 25, 10])
@pytest.mark.parametrize("kernels", [1, 15])
def test_graph_beats_run_ahead_beats_sync_if_nothing_is_wasted(layer_us, kernels):
    call = dict(layer_us=layer_us, kernels_per_layer=kernels)
    assert total("graph", **call) < total("runahead", **call) < total("sync", **call)
    early = call | dict(exit_layer=6)
    assert total("graph", **early) < total("graph_flat", **early)


def test_a_wasted_layer_can_cost_more_than_all_waits():
    assert total("runahead", layer_us=668, exit_layer=6) > total("sync", layer_us=668, exit_layer=6)


@pytest.mark.parametrize("runtime", get_args(Runtime))
@pytest.mark.parametrize("name", NAMES)
def test_a_dearer_part_makes_no_call_cheaper(runtime, name):
    """At full depth only: with an earlier exit, a later decision can save run-ahead a layer."""
    dearer = replace(PUBLISHED, **{name: getattr(PUBLISHED, name) + 10})
    for call in (dict(), dict(layer_us=5.0), dict(setter=True)):
        assert total(runtime, **call, constants=dearer) >= total(runtime, **call)


@pytest.mark.parametrize(
    ("runtime", "names"),
    [
        ("sync", "op_us stream_gap_us graph_gap_us exit_us copy_us wait_us"),
        ("runahead", "stream_gap_us graph_gap_us exit_us copy_us"),
        ("graph", "graph_launch_us graph_node_us graph_gap_us exit_us node_us"),
        ("graph_full", "graph_launch_us graph_node_us"),
        ("eager_full", "op_us stream_gap_us"),
    ],
)
def test_which_parts_a_call_pays_for(runtime, names):
    """With layers of 56 us the GPU is the slower one, so what the host does meanwhile is free."""
    for name in NAMES:
        dearer = replace(PUBLISHED, **{name: getattr(PUBLISHED, name) + 0.5})
        paid = total(runtime, constants=dearer) - total(runtime)
        launched = (
            runtime == "runahead" and name == "op_us"
        )  # there is no kernel to hide the first launch
        assert (paid > 1e-9) == (name in names.split() or launched), name


@pytest.mark.parametrize("depth", [0, 1, 2, 5])
def test_depth_bounds_waste(depth):
    for exit_at in range(1, 13):
        for layer_us in (1.0, 20.0, 400.0):
            call = MODEL | dict(layer_us=layer_us, exit_layer=exit_at, depth=depth)
            cost = call_us("runahead", **call)
            assert 0 <= cost.layers_wasted <= min(depth, 12 - exit_at)
            if layer_us == 400:  # then the host is always ahead
                assert cost.layers_wasted == min(depth, 12 - exit_at)


def test_the_mean_weighs_exits_by_their_share():
    mean = mean_us("graph", {3: 0.75, 7: 0.25}, **MODEL)
    three, seven = (call_us("graph", exit_layer=i, **MODEL) for i in (3, 7))
    assert mean.total_us == pytest.approx(0.75 * three.total_us + 0.25 * seven.total_us)
    assert mean.layers_run == 4
    added = 0.75 * 3 * three.decision_us + 0.25 * 7 * seven.decision_us
    assert mean.decision_us == pytest.approx(added / 4)


@pytest.mark.parametrize("call", [dict(exit_layer=0), dict(exit_layer=13), dict(depth=-1)])
def test_what_the_model_does_not_have(call):
    with pytest.raises(ValueError, match="12 layers"):
        call_us("sync", **MODEL | call)


def test_unknown_runtime():
    with pytest.raises(ValueError, match="graph_flat"):
        call_us("magic", **MODEL)


def test_every_constant_says_where_it_comes_from():
    for constant in fields(Constants):
        notes = constant.metadata
        assert notes["meaning"]
        assert notes["where"]
        assert notes["status"] in ("published", "derived", "ASSUMED")
        assert (notes["status"] == "ASSUMED") == (not notes["source"].startswith("https://"))


def test_the_committed_report_is_what_the_command_prints(capsys):
    runpy.run_module("bench.overhead_model", run_name="__main__")
    printed = capsys.readouterr().out
    committed = (ROOT / "docs" / "overhead_model.md").read_text()
    assert printed == committed, "run: python -m bench.overhead_model > docs/overhead_model.md"
    headings = [line for line in committed.splitlines() if line.startswith("#")]
    assert all(
        "computed, not measured" in h or h in ("## Reading", "## Constants") for h in headings
    )
