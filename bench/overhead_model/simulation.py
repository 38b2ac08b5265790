"""The simulation of a host and a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any, Literal, get_args

from bench.overhead_model.constants import PUBLISHED, Constants

Runtime = Literal["sync", "runahead", "graph", "graph_flat", "eager_full", "graph_full"]


@dataclass(frozen=True)
class CallCost:
    """What one call costs.

    Args:
        total_us: until the GPU is done and the host is free to read the answer. Reading it costs
            every runtime the same and is not included.
        layers_run: wasted ones included.
        layers_wasted: layers that ran after the sample had exited.
        waits: how often the host waited for the GPU.
        decision_us: what exits added to each layer that was needed, waste included, compared with
            the same layers without exits: eager for sync and run-ahead, in a graph for the graphs.
    """

    total_us: float
    layers_run: float
    layers_wasted: float
    waits: float
    decision_us: float


@dataclass
class _Clock:
    """When the host is free and when the GPU is, in us since the call began."""

    host: float = 0.0
    gpu: float = 0.0

    def kernel(self, host_us: float, gap_us: float, gpu_us: float) -> None:
        """The host launches a kernel, which starts `gap_us` after the one before or when launched,
        whichever is later."""
        self.host += host_us
        self.gpu = max(self.gpu + gap_us, self.host) + gpu_us

    def copy(self, constants: Constants) -> float:
        """The host enqueues a copy of the decision; returns the time at which it arrives."""
        self.kernel(constants.copy_issue_us, 0.0, constants.copy_us)
        return self.gpu


def call_us(
    runtime: Runtime,
    *,
    layers: int,
    layer_us: float,
    kernels_per_layer: int,
    exit_layer: int | None = None,
    constants: Constants = PUBLISHED,
    depth: int = 1,
    exit_kernels: int = 1,
    setter: bool = False,
) -> CallCost:
    """One sample through a model with an exit after every layer.

    Args:
        runtime: with exits sync, runahead, graph (nested IF nodes) or graph_flat; without them
            eager_full or graph_full.
        layer_us: GPU time of a layer in a graph, the gaps between its kernels included.
        kernels_per_layer: each costs the host `op_us` on a stream.
        exit_layer: after which layer the sample exits; None: the last. Without exits all run.
        constants: what the parts cost.
        depth: of runahead, in layers.
        exit_kernels: per exit, each of `exit_us`; more than 1 for a chain of PyTorch calls.
        setter: whether a kernel of its own sets each node's condition, as in torch's API; else
            the exit step sets it.

    Raises:
        ValueError: an unknown runtime, an exit that the model does not have, or a negative depth.
    """
    exit_at = layers if exit_layer is None else exit_layer
    if runtime not in get_args(Runtime):
        raise ValueError(f"runtime must be one of {get_args(Runtime)}, got {runtime!r}")
    if not 1 <= exit_at <= layers or depth < 0:
        raise ValueError(f"no exit {exit_at} in {layers} layers, or negative depth {depth}")
    c, clock, waits, run = constants, _Clock(), 0, layers
    in_graph = runtime.startswith("graph")

    def stage(exits: int) -> None:
        """A layer and the kernels of its exit, one by one or as part of a graph."""
        op_us, gap_us = (0.0, 0.0) if in_graph else (c.op_us, c.stream_gap_us)
        for _ in range(kernels_per_layer):
            clock.kernel(op_us, gap_us, layer_us / kernels_per_layer)
        for _ in range(exits):
            clock.kernel(op_us, gap_us + c.graph_gap_us, c.exit_us)

    if in_graph:
        nodes = layers * kernels_per_layer
        if runtime != "graph_full":
            nodes += layers * exit_kernels + (layers - 1) * (1 + setter)
        clock.host = c.graph_launch_us + nodes * c.graph_node_us
    if runtime in ("eager_full", "graph_full"):
        for _ in range(layers):
            stage(0)
        return CallCost(max(clock.host, clock.gpu), layers, 0, 0, 0.0)
    if runtime in ("graph", "graph_flat"):
        run = exit_at
        for layer in range(1, layers + 1):
            if layer <= run:
                stage(exit_kernels)
            elif runtime == "graph":
                break
            if layer < layers:
                if setter:
                    clock.kernel(0.0, c.graph_gap_us, c.null_us)
                clock.kernel(0.0, 0.0, c.node_us)
    elif runtime == "sync":
        run = waits = exit_at
        for _ in range(exit_at):
            stage(exit_kernels)
            clock.host = clock.copy(c) + c.wait_us
    else:
        arrivals: list[float] = []
        decided = 0
        for ahead in range(layers):
            # As in RunAheadRuntime.run: before each stage, read what has arrived.
            while decided < ahead and decided < exit_at:
                if arrivals[decided] > clock.host:
                    if ahead - decided <= depth:
                        break
                    clock.host, waits = arrivals[decided] + c.wait_us, waits + 1
                decided += 1
            if decided == exit_at:
                run = ahead
                break
            stage(exit_kernels)
            if ahead < layers - 1:
                arrivals.append(clock.copy(c))
                clock.host += c.news_us
    total = max(clock.host, clock.gpu)
    bare = call_us(
        "graph_full" if in_graph else "eager_full",
        layers=exit_at, layer_us=layer_us, kernels_per_layer=kernels_per_layer, constants=c,
    )  # fmt: skip
    return CallCost(total, run, run - exit_at, waits, (total - bare.total_us) / exit_at)


def mean_us(runtime: Runtime, exits: Mapping[int, float], **call: Any) -> CallCost:
    """The average call when a share `exits[i]` of the samples exits after layer i.

    The other arguments are those of `call_us`. The decision cost is per layer needed, so samples
    that exit later count for more.
    """
    costs = {i: call_us(runtime, exit_layer=i, **call) for i in exits}
    total, run, wasted, waits, _ = (
        sum(exits[i] * value for i, value in zip(exits, values, strict=True))
        for values in zip(*map(astuple, costs.values()), strict=True)
    )
    added = sum(share * i * costs[i].decision_us for i, share in exits.items())
    return CallCost(total, run, wasted, waits, added / sum(i * s for i, s in exits.items()))
