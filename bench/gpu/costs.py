"""What the host pays for: launches, `.item()`, a polled flag. All in us.

Each is a difference between sizes of the same thing, which removes what all sizes pay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from typing import Any

import torch
from torch import Tensor

from bench.gpu.timing import Gpu
from eefast.measure import medians, slope, summary, take_turns
from eefast.runtime.graph.device import GraphDevice

SIZES = (20, 120, 220)  # launches; all fit in a launch queue of 1024
HOLD_US = 5000.0

Condition = Callable[[int], tuple[Tensor, Tensor | None]]
"""The flag of node 1, 2, ..., and the handle that the work before it sets, if it does."""


@torch.inference_mode()
def launches(gpu: Gpu, device: GraphDevice, seconds: float) -> dict[str, float]:
    """A PyTorch op of one kernel, a graph, and a kernel of each on the GPU."""
    x = torch.zeros(1, device=gpu.device)

    def ops(n: int) -> Callable[[], None]:
        def call() -> None:
            for _ in range(n):
                x.add_(1)

        return call

    with ExitStack() as graphs:
        replays = {n: recorded(device, graphs, ops(n)) for n in SIZES}
        each = dict(seconds=seconds / 4, rounds=(10, 300))
        stream = {str(n): ops(n) for n in SIZES}
        graph = {str(n): replays[n] for n in SIZES}
        host_op, _ = slope(_by_size(medians(stream, gpu.enqueue, **each)))
        on_stream, _ = slope(_by_size(medians(stream, gpu.queued(HOLD_US), **each)))
        host_node, host_graph = slope(_by_size(medians(graph, gpu.enqueue, **each)))
        in_graph, _ = slope(_by_size(medians(graph, gpu.queued(HOLD_US), **each)))
    return {
        "op_host_us": host_op,
        "graph_launch_host_us": host_graph,
        "graph_node_host_us": host_node,
        "kernel_on_stream_us": on_stream,
        "kernel_in_graph_us": in_graph,
    }


@torch.inference_mode()
def item(gpu: Gpu, seconds: float) -> dict[str, Any]:
    """`.item()` of a flag on an idle GPU and behind one kernel, and the parts of a copy."""
    flag, x = torch.ones((), dtype=torch.bool, device=gpu.device), torch.zeros(1, device=gpu.device)
    pinned = gpu.pinned(torch.bool)

    def copies(n: int) -> Callable[[], None]:
        def call() -> None:
            for _ in range(n):
                pinned.copy_(flag, non_blocking=True)

        return call

    def behind_a_kernel() -> None:
        x.add_(1)
        flag.item()

    each = dict(seconds=seconds / 3, rounds=(10, 1000))
    calls = {"item_us": flag.item, "kernel_and_item_us": behind_a_kernel}
    variants = {name: lambda _, call=call: call for name, call in calls.items()}
    times = take_turns(variants, {"": gpu.enqueue}, (None,), **each)[""]
    sizes = {str(n): copies(n) for n in SIZES}
    issue, _ = slope(_by_size(medians(sizes, gpu.enqueue, **each)))
    copy, _ = slope(_by_size(medians(sizes, gpu.queued(HOLD_US), **each)))
    return {
        **{name: summary(of_one) for name, of_one in times.items()},
        "copy_issue_host_us": issue,
        "copy_us": copy,
    }


@torch.inference_mode()
def polled_flag(gpu: Gpu, seconds: float) -> dict[str, Any]:
    """What run-ahead does instead: publish into pinned memory and look there."""
    exit_layer = torch.zeros(1, dtype=torch.int32, device=gpu.device)

    def seen(_: None) -> Callable[[], None]:
        queue = gpu.call_queue()

        def call() -> None:
            queue.publish(0, exit_layer)
            looks = 0
            while queue.poll(0) is None:
                looks += 1
                if looks > 10**6:
                    raise RuntimeError("the flag has not arrived after a million looks")

        return call

    def waited_for(_: None) -> Callable[[], None]:
        queue = gpu.call_queue()

        def call() -> None:
            queue.publish(0, exit_layer)
            queue.wait(0)

        return call

    def published(_: None) -> Callable[[], None]:
        queue = gpu.call_queue()
        return lambda: queue.publish(0, exit_layer)

    def looked(_: None) -> Callable[[], None]:
        queue = gpu.call_queue()

        def call() -> None:
            for _ in range(100):
                queue.poll(0)

        return call

    times = take_turns(
        dict(seen=seen, waited_for=waited_for, published=published, looked=looked),
        {"": gpu.enqueue}, (None,), seconds=seconds, rounds=(10, 1000),
    )[""]  # fmt: skip
    return {
        "publish_and_see_us": summary(times["seen"]),
        "publish_and_wait_us": summary(times["waited_for"]),
        "publish_host_us": summary(times["published"]),
        "look_host_us": summary(times["looked"] / 100),
    }


def recorded(
    device: GraphDevice,
    graphs: ExitStack,
    start: Callable[[], None],
    bodies: Sequence[Callable[[], None]] = (),
    condition: Condition | None = None,
    nested: bool = False,
) -> Callable[[], None]:
    """The replay of a graph of `start` and then each body, in an IF node if there is a condition.

    Args:
        graphs: closes the graph at its end.
    """
    capture = device.capture()
    graphs.callback(capture.close)
    with device.warming_up():
        for work in (start, *bodies):
            work()
    with capture.recording():
        start()
        with ExitStack() as nodes:
            for number, work in enumerate(bodies, 1):
                if not nested:
                    nodes.close()
                node = nullcontext() if condition is None else capture.only_if(*condition(number))
                nodes.enter_context(node)
                work()
    capture.replay()
    return capture.replay


def _by_size(us: dict[str, float]) -> dict[int, float]:
    return {int(size): time for size, time in us.items()}
