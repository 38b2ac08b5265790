"""Two ways to put an IF node into a CUDA graph that is being captured."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from eefast.ops import has_cuda

try:
    from cuda.bindings import runtime as cudart
except ImportError:
    cudart = None


def torch_has_if_nodes() -> bool:
    """Whether this PyTorch makes IF nodes: 2.13 and newer, built for CUDA."""
    return hasattr(torch.cuda.CUDAGraph, "begin_capture_to_if_node")


@contextmanager
def torch_if_node(graph: Any, flag: Tensor) -> Iterator[None]:
    """A node by PyTorch: an extra kernel reads the flag, and the node follows it.

    Args:
        graph: the torch.cuda.CUDAGraph that is being captured.
        flag: bool scalar on the device.
    """
    graph.begin_capture_to_if_node(flag)
    body = torch.cuda.current_stream(flag.device) if flag.is_cuda else None
    try:
        yield
    finally:
        try:
            graph.end_capture_to_conditional_node()
        except RuntimeError:
            if body is not None:  # PyTorch does not end it if CUDA has spoiled the capture
                _end_capture(body)
            raise


def _end_capture(stream: torch.cuda.Stream) -> None:
    """End a stream's capture, and ignore CUDA's answer."""
    driver = ctypes.CDLL("libcuda.so.1")
    driver.cuStreamEndCapture(ctypes.c_void_p(stream.cuda_stream), ctypes.byref(ctypes.c_void_p()))


class BindingsIfNodes:
    """The nodes of one graph, by CUDA's own functions through the package cuda-bindings.

    Where the exit step sets the condition itself, there is no kernel that reads the flag.

    All bodies are captured on one stream, which is neither that of the graph nor one that PyTorch
    hands out: an inner node is the last work of the body around it, so that body's capture can end
    where the inner one begins. What a library sets up per stream is then there once.

    Args:
        stream: of the bodies, from `body_stream`.
    """

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream
        self._in_body = False
        self._to_tell: list[tuple[Tensor, int]] = []

    @staticmethod
    def missing() -> str | None:
        """What this needs and is missing, or None."""
        if cudart is None:
            return "the package cuda-bindings, of the CUDA that torch is built with"
        if not has_cuda():
            return "eefast's extension built with CUDA"
        return None

    @staticmethod
    def body_stream(device: torch.device) -> torch.cuda.Stream:
        """A new stream, which lives as long as the process."""
        with torch.cuda.device(device):
            made = _call("cudaStreamCreateWithFlags", cudart.cudaStreamNonBlocking)
        return torch.cuda.ExternalStream(int(made), device)

    @contextmanager
    def node(self, flag: Tensor, handle: Tensor | None) -> Iterator[None]:
        """What is captured inside is the node's body; see `Capture.only_if`."""
        body = self._add(torch.cuda.current_stream(flag.device), flag, handle)
        if self._in_body:
            self._end_body()
        mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        at = self._stream.cuda_stream
        _call("cudaStreamBeginCaptureToGraph", at, body, None, None, 0, mode)
        self._in_body = True
        try:
            with torch.cuda.stream(self._stream):
                yield
        except BaseException:
            if self._in_body:  # CUDA's answer is ignored: another error came first
                cudart.cudaStreamEndCapture(at)
                self._in_body = False
            raise
        if self._in_body:
            self._end_body()

    def tell_handles(self) -> None:
        """Write the handles where the exit steps read them; call it after the capture."""
        for handle, number in self._to_tell:
            handle.fill_(number)

    def _add(self, stream: torch.cuda.Stream, flag: Tensor, handle: Tensor | None) -> Any:
        """Add a node after what a stream has captured; returns its empty body."""
        graph, _ = _captured_so_far(stream)
        # Whatever an earlier launch has left, the condition is false until it is set.
        default = cudart.cudaGraphConditionalHandleFlags.cudaGraphCondAssignDefault
        condition = _call("cudaGraphConditionalHandleCreate", graph, 0, default)
        if handle is None:
            torch.ops.eefast.set_conditional(flag, _signed(int(condition)))
        else:
            self._to_tell.append((handle, _signed(int(condition))))

        node = cudart.cudaGraphNodeParams()
        node.type = cudart.cudaGraphNodeType.cudaGraphNodeTypeConditional
        node.conditional.handle = condition
        node.conditional.type = cudart.cudaGraphConditionalNodeType.cudaGraphCondTypeIf
        node.conditional.size = 1
        graph, behind = _captured_so_far(stream)
        waits = [cudart.cudaGraphEdgeData() for _ in behind]  # until all of it is done
        added = _call("cudaGraphAddNode", graph, behind, waits, len(behind), node)
        how = cudart.cudaStreamUpdateCaptureDependenciesFlags.cudaStreamSetCaptureDependencies
        edge = [cudart.cudaGraphEdgeData()]
        at = stream.cuda_stream
        _call("cudaStreamUpdateCaptureDependencies", at, [added], edge, 1, how)
        return node.conditional.phGraph_out[0]

    def _end_body(self) -> None:
        self._in_body = False
        _call("cudaStreamEndCapture", self._stream.cuda_stream)


def _captured_so_far(stream: torch.cuda.Stream) -> tuple[Any, list[Any]]:
    """The graph that a stream is capturing into, and the nodes that its next node depends on."""
    _, _, graph, nodes, _, _ = _call("cudaStreamGetCaptureInfo", stream.cuda_stream)
    return graph, nodes


_WITH_EDGES = {
    # In CUDA 12 the versions that know edges have numbers; in CUDA 13 there are no others.
    "cudaStreamGetCaptureInfo": "_v3",
    "cudaGraphAddNode": "_v2",
    "cudaStreamUpdateCaptureDependencies": "_v2",
}


def _call(name: str, *args: Any) -> Any:
    """What a function of CUDA returns: nothing, one value or a tuple."""
    function = getattr(cudart, name + _WITH_EDGES.get(name, ""), None) or getattr(cudart, name)
    error, *values = function(*args)
    if error != cudart.cudaError_t.cudaSuccess:
        raise RuntimeError(f"{name}: {cudart.cudaGetErrorString(error)[1].decode()}")
    return values[0] if len(values) == 1 else tuple(values)


def _signed(number: int) -> int:
    """An unsigned number of 64 bits as a tensor of int64 holds it."""
    return number - (1 << 64) if number >= 1 << 63 else number
