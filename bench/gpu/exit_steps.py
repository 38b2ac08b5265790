"""What one exit step costs, for every implementation that is available. All in us."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch

from bench.exits import exit_step, make_exit
from bench.gpu.costs import recorded
from bench.gpu.timing import Gpu
from eefast.measure import medians, slope
from eefast.ops import Impl
from eefast.ops.implementations import CUDA_ROWS
from eefast.runtime.graph.device import GraphDevice

WIDTH = 768
CLASSES = {"linear": 2, "pooler": 2, "vocabulary": 50257}
# Other precisions at batch 1 only: what differs is the reading of the weights.
CASES = (
    *((torch.float16, batch) for batch in (1, 8, 32)), (torch.bfloat16, 1), (torch.float32, 1),
)  # fmt: skip
IN_A_GRAPH = (2, 18)
HOLD_US = 1000.0


@torch.inference_mode()
def exit_steps(
    gpu: Gpu,
    device: GraphDevice | None,
    impl: Impl,
    head: str,
    seconds: float,
    cases: tuple[tuple[torch.dtype, int], ...] = CASES,
) -> list[dict[str, Any]]:
    """One row per precision and batch.

    `host_us`: until the op returns; `call_us`: until the GPU is done and the host knows;
    `graph_us`: one more step in a graph, its launch gap included. The same weights at every call:
    those of small heads lie in the GPU's cache.

    Args:
        device: None: no graphs.

    Raises:
        RuntimeError: the implementation is not built.
    """
    rows = []
    for dtype, batch in cases:
        if impl == "cuda" and batch > CUDA_ROWS:
            continue
        call, _ = exit_step(impl, *make_exit(head, WIDTH, CLASSES[head], batch, gpu.device, dtype))
        each = dict(seconds=seconds / len(cases) / 3, rounds=(5, 300))
        row: dict[str, Any] = {
            "impl": impl, "head": head, "dtype": str(dtype).removeprefix("torch."), "batch": batch,
            "host_us": medians({"": call}, gpu.enqueue, **each)[""],
            "call_us": medians({"": call}, gpu.wall, **each)[""],
            "graph_us": None,
        }  # fmt: skip
        # The reference reads which samples are running: it cannot be captured.
        if device is not None and impl != "reference":
            with ExitStack() as graphs:
                replays = {
                    str(n): recorded(device, graphs, call, [call] * (n - 1)) for n in IN_A_GRAPH
                }
                times = medians(replays, gpu.queued(HOLD_US), **each)
                gpu.synchronize()
            row["graph_us"] = slope({int(n): us for n, us in times.items()})[0]
        rows.append(row)
    return rows
