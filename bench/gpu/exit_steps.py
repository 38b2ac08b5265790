"""What one exit step costs, for every implementation that is there. All in us."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch

from bench.gpu.costs import recorded
from bench.gpu.timing import Gpu, medians, slope
from eefast.ops import ExitState, HeadWeights, Impl, Step, implementation
from eefast.ops.implementations import CUDA_ROWS
from eefast.ops.recurrence import Gain, Keep
from eefast.runtime.graph.device import GraphDevice

WIDTH, TOKENS = 768, 32
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
    those of small heads lie in the GPU's cache. Nobody leaves, so that no call is idle.

    Args:
        device: None: no graphs.

    Raises:
        RuntimeError: the implementation is not built.
    """
    rows = []
    for dtype, batch in cases:
        if impl == "cuda" and batch > CUDA_ROWS:
            continue
        call = step_of(gpu.device, impl, head, dtype, batch)
        each = dict(seconds=seconds / len(cases) / 3, rounds=(5, 300))
        row: dict[str, Any] = {
            "impl": impl, "head": head, "dtype": str(dtype).removeprefix("torch."), "batch": batch,
            "host_us": medians({"": call}, gpu.enqueue, **each)[""],
            "call_us": medians({"": call}, gpu.wall, **each)[""],
            "graph_us": None,
        }  # fmt: skip
        # The reference looks who is running: it cannot be captured.
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


def step_of(
    device: str, impl: Impl, head: str, dtype: torch.dtype, batch: int
) -> Callable[[], None]:
    """One exit step of BEEM on the first tokens of [B, 32, 768]."""
    classes, made = CLASSES[head], dict(dtype=dtype, device=device)
    torch.manual_seed(0)
    pooler = (None, None)
    if head == "pooler":
        pooler = (torch.randn(WIDTH, WIDTH, **made) * WIDTH**-0.5, torch.zeros(WIDTH, **made))
    weight = torch.randn(classes, WIDTH, **made) * WIDTH**-0.5
    weights = HeadWeights(*pooler, weight, torch.zeros(classes, **made))
    hidden = torch.randn(batch, TOKENS, WIDTH, **made)
    state = ExitState.start(batch, classes, 12, device)
    table = torch.tensor([[0.5, float("inf"), 0.0]] * 12, device=device)
    packed = Step(exit=1, layer=1, keep=Keep.AGREE, gain=Gain.CONFIDENCE).pack()
    op = implementation(impl, device, dtype, rows=batch, classes=classes)
    return lambda: op(hidden, None, *weights, None, table, None, packed, *state)
