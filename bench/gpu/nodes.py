"""What an IF node costs on the GPU, alone and behind an exit step. All in us."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch

from bench.gpu.costs import Condition, recorded
from bench.gpu.timing import Gpu
from eefast.measure import medians, slope
from eefast.ops import HeadWeights, PackedState, Step, implementation, sets_conditionals
from eefast.ops.kinds import Gain, Keep
from eefast.runtime.graph.device import GraphDevice

NODES = (2, 6, 11)  # 11 as in a model of 12 layers
GRAPHS_AT_ONCE = 10
HOLD_US = 1000.0
WIDTH, CLASSES = 768, 2


class Chain(NamedTuple):
    """The work of one graph; no condition: without nodes."""

    start: Callable[[], None]
    body: Callable[[int], Callable[[], None]]  # of node 1, 2, ...
    condition: Condition | None
    nested: bool


@torch.inference_mode()
def if_nodes(gpu: Gpu, device: GraphDevice, presets: bool, seconds: float) -> dict[str, Any]:
    """What a node with one kernel in its body costs beyond that kernel; also the graphs' times.

    Args:
        presets: whether a node can be made without a kernel that sets its condition (which then
            stays false), as with cuda-bindings.
    """
    x = torch.zeros(1, device=gpu.device)
    yes, no = (torch.full((), value, device=gpu.device) for value in (True, False))
    handle = torch.zeros((), dtype=torch.int64, device=gpu.device)

    def kernel() -> None:
        x.add_(1)

    def chain(condition: Condition | None, nested: bool) -> Callable[[], Chain]:
        return lambda: Chain(kernel, lambda _: kernel, condition, nested)

    kinds = {
        "kernels": chain(None, False),
        "flat, true": chain(lambda _: (yes, None), False),
        "flat, false": chain(lambda _: (no, None), False),
        "nested, true": chain(lambda _: (yes, None), True),
        "nested, false": chain(lambda _: (no, None), True),
    }
    if presets:
        kinds["flat, false, no setter"] = chain(lambda _: (no, handle), False)
    times, errors = _times(gpu, device, kinds, seconds)
    added = _per_node(times)
    body = added.pop("kernels")
    node = {kind: us - body if kind.endswith("true") else us for kind, us in added.items()}
    return {"node_us": node, "kernel_us": body, "graphs_us": times, "errors": errors}


@torch.inference_mode()
def exit_nodes(gpu: Gpu, device: GraphDevice, dtype: torch.dtype, seconds: float) -> dict[str, Any]:
    """Exit steps (linear, 768 to 2, batch 1) in a row, and each in the node of the one before.

    This is what a stage of a captured model has beside its layers. The difference is the cost of
    its node, with its setter where the exit step does not set the condition itself.
    """
    exits = max(NODES) + 1
    hidden = torch.randn(1, 8, WIDTH, dtype=dtype, device=gpu.device)
    weight = torch.randn(CLASSES, WIDTH, dtype=dtype, device=gpu.device)
    head = HeadWeights(None, None, weight, None)
    op = implementation("auto", gpu.device, dtype, rows=1, classes=CLASSES)

    def chain(threshold: float, in_nodes: bool, nested: bool) -> Callable[[], Chain]:
        def make() -> Chain:
            # Each graph has its own: it writes the handles of its nodes into the state.
            state = PackedState(1, CLASSES, exits, gpu.device)
            table = torch.tensor([[1.0, threshold, 0.0]] * exits, device=gpu.device)
            running, control = state.state.running, state.state.control

            def step(exit: int) -> Callable[[], None]:
                packed = Step(exit, exit, Keep.NEVER, Gain.CONFIDENCE).pack()
                return lambda: op(hidden, None, *head, None, table, None, packed, *state.state)

            def start() -> None:
                state.start()
                step(1)()

            def condition(number: int) -> tuple[torch.Tensor, torch.Tensor | None]:
                tells = control is not None and sets_conditionals(op)
                return running[number - 1], control[number - 1, 1] if tells else None

            return Chain(start, lambda n: step(n + 1), condition if in_nodes else None, nested)

        return make

    kinds = {
        "in a row": chain(2.0, False, False),
        "nested, running": chain(2.0, True, True),
        "flat, running": chain(2.0, True, False),
        "nested, exited": chain(0.0, True, True),
        "flat, exited": chain(0.0, True, False),
    }
    times, errors = _times(gpu, device, kinds, seconds)
    added = _per_node(times)
    row = added.pop("in a row")
    node = {kind: us - row if kind.endswith("running") else us for kind, us in added.items()}
    return {
        "impl": str(op).rpartition(".")[2],
        "exit_in_graph_us": row,
        "node_us": node,
        "graphs_us": times,
        "errors": errors,
    }


def _per_node(times: Mapping[str, Mapping[int, float]]) -> dict[str, float]:
    """What one more body costs."""
    return {kind: slope(us)[0] for kind, us in times.items() if len(us) > 1}


def _times(
    gpu: Gpu, device: GraphDevice, kinds: Mapping[str, Callable[[], Chain]], seconds: float
) -> tuple[dict[str, dict[int, float]], dict[str, str]]:
    """Times of graphs of each kind by number of bodies; and those that could not be made.

    Raises:
        RuntimeError: a failure after which the GPU is of no more use.
    """
    errors: dict[str, str] = {}
    replays: dict[str, Callable[[], None]] = {}

    def several(replay: Callable[[], None]) -> Callable[[], None]:
        def call() -> None:
            for _ in range(GRAPHS_AT_ONCE):
                replay()

        return call

    with ExitStack() as graphs:
        for kind, make in kinds.items():
            for number in NODES:
                start, body, condition, nested = make()
                bodies = [body(n) for n in range(1, number + 1)]
                try:
                    replay = recorded(device, graphs, start, bodies, condition, nested)
                except RuntimeError as error:
                    errors[f"{kind}, {number} nodes"] = str(error)
                    gpu.synchronize()
                else:
                    replays[f"{kind}|{number}"] = several(replay)
        times: dict[str, dict[int, float]] = {kind: {} for kind in kinds}
        clock = gpu.queued(HOLD_US)
        for name, us in medians(replays, clock, seconds=seconds, rounds=(10, 200)).items():
            kind, number = name.split("|")
            times[kind][int(number)] = us / GRAPHS_AT_ONCE
        gpu.synchronize()
    return times, errors
