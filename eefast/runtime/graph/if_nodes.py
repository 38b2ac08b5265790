"""Two ways to put an IF node into a CUDA graph that is being captured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor


@contextmanager
def torch_if_node(graph: Any, flag: Tensor) -> Iterator[None]:
    """PyTorch's own calls (2.13 and newer): a kernel reads `flag`, the node stands behind it.

    Args:
        graph: the torch.cuda.CUDAGraph that is being captured.
        flag: bool scalar on the device.
    """
    graph.begin_capture_to_if_node(flag)
    try:
        yield
    finally:
        graph.end_capture_to_conditional_node()
