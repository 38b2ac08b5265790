"""What bench/overhead_model computes from the constants measured here, beside the times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bench.overhead_model import PUBLISHED, Constants, Runtime, call_us, mean_us

RUNTIMES: dict[str, Runtime] = {
    "sync": "sync", "runahead": "runahead", "graph nested": "graph", "graph flat": "graph_flat",
    "eager": "eager_full", "Never(), graph": "graph_full",
}  # fmt: skip


def measured_constants(items: Mapping[str, Any], back_end: str | None) -> dict[str, float]:
    """The constants that follow from the section `costs`, by the names of `Constants`, in us.

    A clock does not separate all that the model does. So an empty kernel's own time stays as
    published, and the rest of a launch is the gap; a wait is what an `.item()` takes beyond its
    copy.

    Args:
        items: of that section.
        back_end: of the graph runtime, "torch" or "bindings".
    """
    found: dict[str, float] = {}
    launches, item, flag = (_sound(items, n) for n in ("launches", ".item()", "polled flag"))
    exits = _sound(items, f"exits in nodes, {back_end}")
    if launches:
        gap = launches["kernel_in_graph_us"] - PUBLISHED.null_us
        found |= {
            "op_us": launches["op_host_us"],
            "graph_launch_us": launches["graph_launch_host_us"],
            "graph_node_us": launches["graph_node_host_us"],
            "graph_gap_us": gap,
            "stream_gap_us": launches["kernel_on_stream_us"] - launches["kernel_in_graph_us"],
        }
        if exits and exits["exit_in_graph_us"] is not None:
            found["exit_us"] = exits["exit_in_graph_us"] - max(gap, 0.0)
    if item:
        issue, copy = item["copy_issue_host_us"], item["copy_us"]
        found |= {"copy_issue_us": issue, "copy_us": copy}
        found["wait_us"] = item["item_us"]["us"] - issue - copy
        if flag:
            published = flag["publish_host_us"]["us"] - issue
            found["news_us"] = published + flag["look_host_us"]["us"]
    if exits and "nested, running" in exits["node_us"]:
        found["node_us"] = exits["node_us"]["nested, running"]
    # A difference of two times can come out below what it is the difference of.
    return {name: max(us, 0.0) for name, us in found.items()}


def constants(measured: Mapping[str, float]) -> Constants:
    """The published constants, replaced by what was measured."""
    return replace(PUBLISHED, **measured)


def computed_us(row: Mapping[str, Any], here: Constants) -> dict[str, float]:
    """By variant, in us. A row is the result of one shape (`bench.gpu.models.measure`).

    Layers are as long as measured in a graph. Their number of kernels follows from the time in
    which the host enqueues a layer. What a call costs beside its layers (embeddings, copies) is
    taken from the two runs of `Never()`, so `Never(), graph` agrees by construction; nothing else
    does. A node's setter kernel is in `node_us`, as measured.
    """
    wall = {
        name: v["wall"]["us"]
        for name, v in row["variants"].items()
        if "wall" in v and "error" not in v
    }
    if row["layer_us"] is None or row["layer_us"] <= 0:
        return {}
    shape: dict[str, Any] = dict(
        layers=row["layers"],
        layer_us=row["layer_us"],
        kernels_per_layer=max(1, round(row["layer_host_us"] / max(here.op_us, 0.1))),
        constants=here,
    )
    beside = {True: wall["Never(), graph"] - call_us("graph_full", **shape).total_us}
    if "Never(), stream" in wall:
        # It ends with one exit and one `.item()`.
        end = here.op_us + here.copy_issue_us + here.copy_us + here.wait_us
        eager = call_us("eager_full", **shape).total_us
        beside[False] = wall["Never(), stream"] - eager - end
    depths = Counter(row["depths"])
    shares = {depth: count / len(row["depths"]) for depth, count in depths.items()}
    found = {}
    for name, runtime in RUNTIMES.items():
        in_graph = runtime.startswith("graph")
        if name in wall and in_graph in beside:
            total = mean_us(runtime, shares, **shape).total_us
            found[name] = total + beside[in_graph]
    return found


def decision_us(row: Mapping[str, Any], variant: str) -> float | None:
    """What exits added to each layer that was needed: measured, compared with `Never()` in a graph
    without the layers that were not needed."""
    variants, layer_us = row["variants"], row["layer_us"]
    if layer_us is None or "wall" not in variants.get(variant, {}):
        return None
    depth = sum(row["depths"]) / len(row["depths"])
    bare = variants["Never(), graph"]["wall"]["us"] - layer_us * (row["layers"] - depth)
    return float((variants[variant]["wall"]["us"] - bare) / depth)


def _sound(items: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    found = items.get(name)
    return None if found is None or "error" in found or "skipped" in found else found
