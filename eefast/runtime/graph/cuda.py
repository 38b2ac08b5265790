"""CUDA graphs as the graph runtime's device."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

import torch
from torch import Tensor

from eefast.runtime.graph.device import Capture, GraphDevice
from eefast.runtime.graph.if_nodes import BindingsIfNodes, torch_has_if_nodes, torch_if_node

BackEnd = Literal["auto", "torch", "bindings"]


class CudaGraphDevice(GraphDevice):
    """A CUDA device. What it cannot do is said here, before anything is captured.

    Args:
        device: of the model.
        back_end: see `GraphRuntime`.

    Raises:
        ValueError: unknown back end.
        RuntimeError: not CUDA 12.4 or newer, or the back end is not there.
    """

    def __init__(self, device: torch.device, back_end: BackEnd) -> None:
        require_cuda(torch.version.cuda, _driver_version())
        self._device = device
        self._back_end = chosen_back_end(back_end)
        # Bodies of nodes are captured on streams that PyTorch hands out in turn, from a pool per
        # priority. This one, in use as long as the capture lasts, must not be among them.
        self._stream = torch.cuda.Stream(device, priority=-1)

    @contextmanager
    def warming_up(self) -> Iterator[None]:
        # On the stream of the captures, where libraries then find what they set up per stream.
        here = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            yield
        here.wait_stream(self._stream)

    def capture(self) -> Capture:
        kind = TorchCapture if self._back_end == "torch" else BindingsCapture
        return kind(self._stream)


class TorchCapture(Capture):
    """A `torch.cuda.CUDAGraph` with memory of its own; nodes by PyTorch.

    Args:
        stream: to capture on.
    """

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream
        self._graph = torch.cuda.CUDAGraph()
        self._recorded = False
        self._end_of_turn = torch.cuda.Event()

    @contextmanager
    def recording(self) -> Iterator[None]:
        # A workspace that cuBLAS keeps for a stream must not be shared between a graph and what
        # else runs on that stream: before, so that the graph takes memory of its own for it; after,
        # so that nobody else goes on using that.
        _clear_workspaces()
        try:
            with (
                torch.cuda.device(self._stream.device),
                # Other threads of a server go on meanwhile.
                torch.cuda.graph(
                    self._graph, stream=self._stream, capture_error_mode="thread_local"
                ),
            ):
                yield
        finally:
            _clear_workspaces()
        self._recorded = True

    def only_if(self, flag: Tensor, handle: Tensor | None = None) -> AbstractContextManager[None]:
        return torch_if_node(self._graph, flag)

    def replay(self) -> None:
        self._graph.replay()

    @contextmanager
    def turn(self) -> Iterator[None]:
        stream = torch.cuda.current_stream(self._stream.device)
        stream.wait_event(self._end_of_turn)  # at once, before the first one is recorded
        yield
        self._end_of_turn.record(stream)

    @property
    def reserved_bytes(self) -> int:
        if not self._recorded:
            return 0
        return _bytes_of(self._graph.pool())

    def close(self) -> None:
        self._end_of_turn.synchronize()
        self._graph.reset()
        self._recorded = False


class BindingsCapture(TorchCapture):
    """As `TorchCapture`, with nodes by cuda-bindings, for the PyTorch that has none."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        super().__init__(stream)
        self._nodes = BindingsIfNodes()
        # What the bodies of nodes allocate: PyTorch takes them for other captures than the graph's.
        self._memory = torch.cuda.MemPool()

    @contextmanager
    def recording(self) -> Iterator[None]:
        with super().recording(), torch.cuda.use_mem_pool(self._memory, self._stream.device):
            yield
        self._nodes.tell_handles()

    def only_if(self, flag: Tensor, handle: Tensor | None = None) -> AbstractContextManager[None]:
        return self._nodes.node(flag, handle)

    @property
    def reserved_bytes(self) -> int:
        if not self._recorded:
            return 0
        return super().reserved_bytes + _bytes_of(self._memory.id)


def require_cuda(version: str | None, driver: int | None) -> None:
    """Raise unless this PyTorch and its driver know IF nodes.

    Args:
        version: torch.version.cuda.
        driver: as CUDA gives it, 12040 for 12.4; None: unknown.

    Raises:
        RuntimeError: they do not.
    """
    wanted = "IF nodes of CUDA graphs need CUDA 12.4 or newer"
    instead = "runtime='runahead' needs none"
    if version is None:
        raise RuntimeError(f"{wanted}, this torch is built without CUDA; {instead}")
    if tuple(map(int, version.split(".")[:2])) < (12, 4):
        raise RuntimeError(f"{wanted}, this torch is built with CUDA {version}; {instead}")
    if driver is not None and driver < 12040:
        given = f"{driver // 1000}.{driver % 1000 // 10}"
        raise RuntimeError(f"{wanted}, the driver is made for CUDA {given}; {instead}")


def chosen_back_end(back_end: BackEnd) -> Literal["torch", "bindings"]:
    """The way to make IF nodes.

    Raises:
        ValueError: unknown `back_end`.
        RuntimeError: it is not there, or none is.
    """
    if back_end not in ("auto", "torch", "bindings"):
        raise ValueError(f"back_end must be 'auto', 'torch' or 'bindings', got {back_end!r}")
    missing = {"torch": None if torch_has_if_nodes() else "torch 2.13 or newer"}
    missing["bindings"] = BindingsIfNodes.missing()
    candidates: tuple[Literal["torch", "bindings"], ...] = (
        ("torch", "bindings") if back_end == "auto" else (back_end,)
    )
    for candidate in candidates:
        if missing[candidate] is None:
            return candidate
    raise RuntimeError(
        "the graph runtime needs "
        + " or ".join(f"{missing[c]} (back_end={c!r})" for c in candidates)
        + "; runtime='runahead' needs neither"
    )


def _driver_version() -> int | None:
    version = ctypes.c_int()
    try:
        ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    except OSError:
        return None
    return version.value


def _clear_workspaces() -> None:
    torch._C._cuda_clearCublasWorkspaces()


def _bytes_of(pool: tuple[int, int]) -> int:
    segments: list[dict[str, int]] = torch.cuda.memory_snapshot(pool)
    return sum(segment["total_size"] for segment in segments)
