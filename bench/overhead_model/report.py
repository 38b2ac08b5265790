"""docs/overhead_model.md: the model's tables, how to read them, and its constants with sources."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from bench.overhead_model.constants import PUBLISHED, Constants
from bench.overhead_model.simulation import Runtime, mean_us
from eefast.measure import markdown_table

LAYER_TIMES = (668, 91, 56, 25, 10)
BASE: dict[str, Any] = dict(layers=12, exits={6: 1.0}, kernels_per_layer=1)
SPREAD: dict[str, Any] = dict(exits={3: 0.4, 6: 0.3, 9: 0.1, 12: 0.2})


def having(**us: float) -> dict[str, Any]:
    """The published constants, some of them replaced."""
    return dict(constants=replace(PUBLISHED, **us))


MEDIAN = having(wait_us=31.4 - PUBLISHED.copy_issue_us - PUBLISHED.copy_us)
RUNTIMES: dict[str, Runtime] = {
    "eager, full depth": "eager_full", "sync": "sync", "run-ahead": "runahead",
    "graph, flat": "graph_flat", "graph, nested": "graph",
}  # fmt: skip
VARIANTS: dict[str, tuple[Runtime, dict[str, Any]]] = {
    "sync, wait as the published median": ("sync", MEDIAN),
    "sync, exits of 8 kernels (a chain of PyTorch calls)": ("sync", dict(exit_kernels=8)),
    "run-ahead, depth 0": ("runahead", dict(depth=0)),
    "run-ahead, depth 2": ("runahead", dict(depth=2)),
    "run-ahead, exits spread": ("runahead", SPREAD),
    "graph, nested, nodes of 1 us": ("graph", having(node_us=1)),
    "graph, nested, nodes of 5 us": ("graph", having(node_us=5)),
    "graph, nested, nodes of 10 us": ("graph", having(node_us=10)),
    "graph, flat, nodes of 5 us": ("graph_flat", having(node_us=5)),
    "graph, nested, a setter kernel per node": ("graph", dict(setter=True)),
    "graph, nested, 0.2 us of launch per node": ("graph", having(graph_node_us=0.2)),
    "graph, nested, exits spread": ("graph", SPREAD),
}


def _speedup(runtime: Runtime, **call: Any) -> tuple[float, float]:
    """Over the fastest engine of full depth, a graph without exits; and the decision cost in us."""
    cost, full = (mean_us(r, **(BASE | call)) for r in (runtime, "graph_full"))
    return full.total_us / cost.total_us, cost.decision_us


def _runtimes(kernels: int) -> str:
    """Per layer time and runtime: speed-up, decision cost."""
    lines = []
    for us in LAYER_TIMES:
        cells = [_speedup(r, layer_us=us, kernels_per_layer=kernels) for r in RUNTIMES.values()]
        lines.append([str(us), *(f"{s:.2f}x" + f", {add:.1f}" * (add > 0) for s, add in cells)])
    return markdown_table(["layer, us", *RUNTIMES], lines)


def _variants() -> str:
    """Per variant and layer time: speed-up of layers that are one launch."""
    lines = []
    for name, (runtime, call) in VARIANTS.items():
        speedups = (_speedup(runtime, layer_us=us, **call)[0] for us in LAYER_TIMES)
        lines.append([name, *(f"{speedup:.2f}x" for speedup in speedups)])
    return markdown_table(["layer, us", *map(str, LAYER_TIMES)], lines)


def _run_ahead_pays(**call: Any) -> str:
    """The layer times, in whole us, at which run-ahead beats sync."""

    def wins(us: int) -> bool:
        return _speedup("runahead", layer_us=us, **call) > _speedup("sync", layer_us=us, **call)

    times = [us for us in range(1, 1000) if wins(us)]
    starts = [us for us in times if us - 1 not in times]
    ends = [us for us in times if us + 1 not in times]
    return " and ".join(f"{a} to {b}" for a, b in zip(starts, ends, strict=True)) + " us"


def markdown() -> str:
    """The tables, how to read them, and the constants."""
    nested, low, high = (
        _speedup("graph", layer_us=56, **having(node_us=n))[1] for n in (2.5, 1, 5)
    )
    sync, median = (_speedup("sync", layer_us=56, **c)[1] for c in ({}, MEDIAN))
    eager = _speedup("sync", layer_us=25, kernels_per_layer=15)[0]
    constants = []
    for f in fields(Constants):
        status, source = f.metadata["status"], f.metadata["source"]
        linked = f"[{status}]({source})" if source else status
        constants.append(
            [f"`{f.name}`", f"{f.default:g}", linked, f.metadata["meaning"], f.metadata["where"]]
        )
    return TEXT.format(
        one_launch=_runtimes(1), eager_layers=_runtimes(15), variants=_variants(),
        constants=markdown_table(["constant", "us", "status", "what", "where, how"], constants),
        nested=nested, low=low, high=high, sync=sync, median=median, eager=eager,
        pays=_run_ahead_pays(), pays_median=_run_ahead_pays(**MEDIAN),
        host=15 * PUBLISHED.op_us,
    )  # fmt: skip


TEXT = """\
# What sync, run-ahead and graph cost: computed, not measured

Made by `python -m bench.overhead_model > docs/overhead_model.md`, which simulates a host and a GPU.
**Nothing here is a measurement of eefast.** The constants come from several machines, so figures
are orders of magnitude, to be replaced by one GPU's own. A model of 12 layers, an exit after each;
one sample, which exits after layer 6 (2x fewer layers). Speed-up is over a graph of full depth
without exits. The second number is the decision cost: what exits add to each needed layer, in us.

91 and 56 us are a twelfth of BERT-base on an A100 (batch 1, 128 tokens, fp16: 1.09 and 0.67 ms) in
[FasterTransformer](https://github.com/NVIDIA/FasterTransformer/blob/main/docs/bert_guide.md) and
[TensorRT](https://github.com/NVIDIA/TensorRT/tree/main/demo/BERT). 668 us is eager PyTorch there,
from notes whose source is lost; much of it is host time. Read it as any slow layer. 25 and 10 us
are made up.

## Layers of one launch (fused or captured): computed, not measured

{one_launch}

## Eager layers of 15 kernels: computed, not measured

{eager_layers}

## What it depends on; speed-ups of layers of one launch: computed, not measured

{variants}

Exits spread: 40 % exit after layer 3, 30 % after 6, 10 % after 9, 20 % after 12; 1.90x fewer
layers. A setter kernel is what torch's IF nodes add; the CUDA exit step sets the condition itself.

## Reading

- A nested graph adds {nested:.1f} us to a layer, however short it is; {low:.1f} to {high:.1f} with
  nodes of 1 to 5 us. Whether layers of 10 us gain anything depends on what a node costs. We found
  no measurement of that: it is the first thing to measure.
- Sync adds {sync:.1f} us if the wait is as short as the best one published, {median:.1f} if as its
  median.
- Run-ahead hides the wait and runs one layer in vain. With half of 12 layers needed, that beats
  sync for layers of {pays} (best wait) or {pays_median} (median wait).
  For longer layers waiting is cheaper; for shorter ones it matters whether a decision has arrived
  when the host looks.
- Eager layers of 15 kernels take the host {host:.0f} us. If the GPU needs less, exits on a stream
  stay slower than a graph: sync at 25 us reaches {eager:.2f}x of a graph of full depth. Run-ahead
  wastes nothing there, since decisions arrive before the host looks, but that depends on 2 us of
  `news_us`.

## Constants

{constants}

Not in the model: a full launch queue, clocks, spread, cold memory, the completion of nested nodes,
and what the first kernel of a graph waits for. The sources of the graph launch, the gaps, the empty
kernel and the copy's 6 us were read as others quote them."""
