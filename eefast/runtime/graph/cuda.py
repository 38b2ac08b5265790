"""CUDA graphs as the graph runtime's device."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Literal

import torch
from torch import Tensor

from eefast.runtime.graph.device import Capture, GraphDevice
from eefast.runtime.graph.if_nodes import BindingsIfNodes, torch_has_if_nodes, torch_if_node

BackEnd = Literal["auto", "torch", "bindings"]

_one_capture = threading.RLock()
"""Held while a graph is captured or discarded. CUDA spoils a capture if another thread waits for
the device meanwhile, and beginning a capture waits; nor may PyTorch free a memory pool meanwhile.
"""

_dropped: list[tuple[int, list[torch.cuda.MemPool]]] = []
"""Devices and memory pools of captures that were never closed, until none is under way."""

_spoiled: list[torch.cuda.CUDAGraph] = []
"""Graphs whose capture failed. PyTorch 2.13 may have left the streams of bodies in them, and would
make those the current streams of the thread that frees such a graph."""


class CudaGraphDevice(GraphDevice):
    """A CUDA device. It refuses what it cannot do before anything is captured.

    Args:
        device: of the model.
        back_end: see `GraphRuntime`.

    Raises:
        ValueError: unknown back end.
        RuntimeError: not CUDA 12.4 or newer, an allocator that cannot be captured, or the back end
            is not there.
    """

    def __init__(self, device: torch.device, back_end: BackEnd) -> None:
        require_cuda(torch.version.cuda, _driver_version())
        if torch.cuda.memory.get_allocator_backend() == "cudaMallocAsync":
            raise RuntimeError(
                "bodies of IF nodes cannot allocate with PYTORCH_CUDA_ALLOC_CONF="
                "backend:cudaMallocAsync; runtime='runahead' can"
            )
        self._back_end = chosen_back_end(back_end)
        # From a pool of PyTorch's that gives no streams to others.
        self._stream = torch.cuda.Stream(device, priority=-1)
        self._of_bodies: torch.cuda.Stream | None = None
        if self._back_end == "bindings":
            self._of_bodies = BindingsIfNodes.body_stream(self._stream.device)

    @contextmanager
    def warming_up(self) -> Iterator[None]:
        # On the stream of the captures, so that libraries set up there what they keep per stream.
        here = torch.cuda.current_stream(self._stream.device)
        with _one_capture:
            self._stream.wait_stream(here)
            try:
                with torch.cuda.stream(self._stream):
                    yield
            finally:  # the memory of what was begun belongs to the stream of the caller
                here.wait_stream(self._stream)

    def capture(self) -> Capture:
        if self._of_bodies is None:
            return TorchCapture(self._stream)
        return BindingsCapture(self._stream, self._of_bodies)


class TorchCapture(Capture):
    """A `torch.cuda.CUDAGraph` with memory of its own; nodes by PyTorch.

    Args:
        stream: to capture on.
    """

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._memory: list[torch.cuda.MemPool] = []
        self._stream = stream
        self._graph = torch.cuda.CUDAGraph()
        self._end_of_turn = torch.cuda.Event()
        self._memory.append(self._new_pool())

    def _new_pool(self) -> torch.cuda.MemPool:
        with torch.cuda.device(self._stream.device):  # a pool belongs to the device it is made on
            return torch.cuda.MemPool()

    @contextmanager
    def recording(self) -> Iterator[None]:
        device = self._stream.device
        with (
            _one_capture,
            torch.cuda.device(device),
            torch.cuda.stream(torch.cuda.current_stream(device)),  # again, whatever happens
        ):
            while _dropped:
                _give_back(*_dropped.pop())
            # A workspace that cuBLAS keeps for a stream must not be shared between a graph and what
            # else runs on that stream: before, so that the graph takes memory of its own for it;
            # after, so that no other goes on using that. torch.compile's own graphs do the same.
            torch._C._cuda_clearCublasWorkspaces()
            try:
                with torch.cuda.graph(
                    self._graph,
                    pool=self._memory[0].id,  # type: ignore[arg-type]
                    stream=self._stream,
                    capture_error_mode="thread_local",
                ):
                    try:
                        yield
                    except BaseException:
                        torch.cuda.set_stream(self._stream)  # where the capture must end
                        raise
            except BaseException:
                self._clean_up()
                raise
            finally:
                torch._C._cuda_clearCublasWorkspaces()

    def _clean_up(self) -> None:
        """Clean up after a failed capture, as far as PyTorch has not done so."""
        _spoiled.append(self._graph)
        with suppress(RuntimeError):  # it would continue to fill the pool
            torch._C._cuda_endAllocateToPool(self._stream.device_index, self._memory[0].id)
        if not torch_has_if_nodes():  # before 2.13 random numbers fail until a capture succeeds
            with suppress(RuntimeError), torch.cuda.graph(torch.cuda.CUDAGraph()):
                torch.zeros(1, device=self._stream.device)

    def only_if(self, flag: Tensor, handle: Tensor | None = None) -> AbstractContextManager[None]:
        return torch_if_node(self._graph, flag)

    def replay(self) -> None:
        self._graph.replay()

    @contextmanager
    def turn(self) -> Iterator[None]:
        stream = torch.cuda.current_stream(self._stream.device)
        stream.wait_event(self._end_of_turn)  # at once, before the first one is recorded
        try:
            yield
        finally:
            self._end_of_turn.record(stream)

    @property
    def reserved_bytes(self) -> int:
        return sum(
            segment["total_size"]
            for pool in self._memory
            for segment in torch.cuda.memory_snapshot(pool.id)
        )

    def close(self) -> None:
        with _one_capture:
            self._end_of_turn.synchronize()
            self._graph.reset()
            _give_back(self._stream.device_index, self._memory)

    def __del__(self) -> None:
        if self._memory:
            self._graph.reset()
            _dropped.append((self._stream.device_index, self._memory))


class BindingsCapture(TorchCapture):
    """As `TorchCapture`, with nodes by cuda-bindings, for the PyTorch that has none.

    Args:
        stream: to capture on.
        of_bodies: to capture the bodies of nodes on.
    """

    def __init__(self, stream: torch.cuda.Stream, of_bodies: torch.cuda.Stream) -> None:
        super().__init__(stream)
        self._nodes = BindingsIfNodes(of_bodies)
        # What bodies allocate, PyTorch does not take for the graph's.
        self._memory.append(self._new_pool())

    @contextmanager
    def recording(self) -> Iterator[None]:
        with super().recording(), torch.cuda.use_mem_pool(self._memory[1], self._stream.device):
            yield
        self._nodes.tell_handles()

    def only_if(self, flag: Tensor, handle: Tensor | None = None) -> AbstractContextManager[None]:
        return self._nodes.node(flag, handle)


def _give_back(device: int, pools: list[torch.cuda.MemPool]) -> None:
    """Free the memory of pools that no graph uses; hold `_one_capture`."""
    for pool in pools:
        # PyTorch counts two more users of the pool per node, and never subtracts them.
        while pool.use_count() > 1:
            torch._C._cuda_releasePool(device, pool.id)
    pools.clear()


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
