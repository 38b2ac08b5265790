"""The arithmetic of the microbenchmarks, on a GPU of known costs."""

import pytest
import torch

from bench.gpu import costs, exit_steps, nodes
from tests.bench import gpu_stand_in as known


@pytest.fixture
def gpu():
    with known.StandIn() as stand_in:
        yield stand_in


def test_launches(gpu):
    found = costs.launches(gpu, known.GraphsOf(gpu), 0)
    assert found == {
        "op_host_us": pytest.approx(known.OP),
        "graph_launch_host_us": pytest.approx(known.LAUNCH),
        "graph_node_host_us": pytest.approx(known.NODE_OF_GRAPH),
        "kernel_on_stream_us": pytest.approx(known.KERNEL),
        "kernel_in_graph_us": pytest.approx(known.IN_GRAPH),
    }


def test_item(gpu):
    found = costs.item(gpu, 0)
    assert found["item_us"]["us"] == known.ITEM
    assert found["kernel_and_item_us"]["us"] == known.OP + known.ITEM
    assert found["copy_issue_host_us"] == pytest.approx(known.COPY_ISSUE)
    assert found["copy_us"] == pytest.approx(known.COPY)


def test_polled_flag(gpu):
    found = costs.polled_flag(gpu, 0)
    assert found["publish_host_us"]["us"] == pytest.approx(known.COPY_ISSUE)
    assert found["publish_and_see_us"]["us"] == pytest.approx(known.COPY_ISSUE + 0.1)
    assert found["publish_and_wait_us"]["us"] == pytest.approx(known.COPY_ISSUE + 2)
    assert found["look_host_us"]["us"] == pytest.approx(0.1)


def test_if_nodes(gpu):
    found = nodes.if_nodes(gpu, known.GraphsOf(gpu), True, 0)
    assert found["kernel_us"] == pytest.approx(known.IN_GRAPH)
    assert found["errors"] == {}
    assert found["node_us"] == {
        "flat, true": pytest.approx(known.IF_TRUE),
        "flat, false": pytest.approx(known.IF_FALSE),
        "nested, true": pytest.approx(known.IF_TRUE),
        "nested, false": pytest.approx(0, abs=1e-9),  # only the outermost is looked at
        "flat, false, no setter": pytest.approx(known.IF_FALSE),
    }
    assert found["graphs_us"]["nested, false"][11] == pytest.approx(known.IN_GRAPH + known.IF_FALSE)


def test_exits_in_nodes(gpu):
    found = nodes.exit_nodes(gpu, known.GraphsOf(gpu), torch.float32, 0)
    assert found["impl"] == "cpp"
    assert found["exit_in_graph_us"] == pytest.approx(known.EXIT)
    assert found["node_us"] == {
        "nested, running": pytest.approx(known.IF_TRUE),
        "flat, running": pytest.approx(known.IF_TRUE),
        "nested, exited": pytest.approx(0, abs=1e-9),
        "flat, exited": pytest.approx(known.IF_FALSE),
    }


def test_graphs_that_cannot_be_made_leave_the_others(gpu):
    found = nodes.if_nodes(gpu, known.GraphsOf(gpu, refuse_from=11), False, 0)
    assert found["errors"]["nested, true, 11 nodes"] == "no more nodes"
    assert found["node_us"]["nested, true"] == pytest.approx(known.IF_TRUE)  # from 2 and 6
    assert sorted(found["graphs_us"]["flat, true"]) == [2, 6]


@pytest.mark.parametrize("head", ["linear", "pooler"])
def test_exit_steps(gpu, head):
    cases = ((torch.float32, 1), (torch.float32, 3))
    rows = exit_steps.exit_steps(gpu, known.GraphsOf(gpu), "cpp", head, 0, cases)
    assert [(r["batch"], r["dtype"]) for r in rows] == [(1, "float32"), (3, "float32")]
    assert all(r["graph_us"] == pytest.approx(known.EXIT) for r in rows)
    assert all(r["host_us"] == r["call_us"] == known.EXIT for r in rows)


def test_the_reference_is_not_captured(gpu):
    (row,) = exit_steps.exit_steps(
        gpu, known.GraphsOf(gpu), "reference", "linear", 0, ((torch.float32, 1),)
    )
    assert row["graph_us"] is None
