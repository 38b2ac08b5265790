"""Stand-ins for CUDA graphs, on CPU tensors: what was recorded is done on replay, and only then.

`StandInGraph` has the calls of torch.cuda.CUDAGraph, `StandInDevice` is the graph runtime's device:

    device = StandInDevice()
    with device.watching():  # from here on this thread's reads of graph memory are checked
        capture = device.capture()
        with capture.recording():
            first(); flag = ...
            with capture.only_if(flag):
                second()
        with capture.turn():
            capture.replay()

They do less than CUDA forgives. An operator that is captured leaves poison in its results; a replay
starts with poison in all memory of the graph, and a read of what the path taken did not write
raises `Unwritten`. Whatever asks a GPU for a value or a shape raises `Refused`. A tensor made
before the capture must be alive at each replay, or `Stale` is raised: on a GPU its memory would be
somebody else's.

Not seen: `torch.utils.dlpack.to_dlpack` and `data_ptr` as ways to read memory; `.to("cpu")`, which
is `.to(device)` here; which part of a storage was written.
"""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor

from eefast.runtime.graph.device import Capture, GraphDevice
from eefast.runtime.graph.if_nodes import torch_if_node
from tests.runtime.graph.memory import THREAD, GraphError, Refused, Stale, Unwritten, watch
from tests.runtime.graph.recording import StandInGraph

__all__ = [
    "GraphError",
    "Refused",
    "Stale",
    "StandInCapture",
    "StandInDevice",
    "StandInGraph",
    "Unwritten",
]


class StandInCapture(Capture):
    """A capture of a `StandInDevice`.

    Attributes:
        graph: its StandInGraph, whose counters tell what was captured and done.
        turns: how many turns there were.
    """

    def __init__(self, device: "StandInDevice") -> None:
        self.graph = StandInGraph()
        self.turns = 0
        self.closed = False
        self._device = device
        self._turn = threading.Lock()
        self._whose_turn: int | None = None

    @contextmanager
    def recording(self) -> Iterator[None]:
        self._must_be_open("recording")
        self.graph.capture_begin()
        try:
            yield
        except BaseException:
            self.graph.abandon()
            raise
        self.graph.capture_end()

    @contextmanager
    def only_if(self, flag: Tensor, handle: Tensor | None = None) -> Iterator[None]:
        self._must_be_open("only_if")
        if handle is not None and (handle.dtype != torch.int64 or handle.dim() != 0):
            got = f"{handle.dtype} of shape {list(handle.shape)}"
            self.graph.refuse(f"only_if: handle must be an int64 scalar, got {got}")
        with torch_if_node(self.graph, flag):
            yield

    def replay(self) -> None:
        self._must_be_open("replay")
        if self._whose_turn != threading.get_ident():
            raise GraphError("replay: it is not this thread's turn")
        self.graph.replay()
        self._device.replays += 1

    @contextmanager
    def turn(self) -> Iterator[None]:
        self._must_be_open("turn")
        if not self._turn.acquire(blocking=False):
            raise GraphError("turn: another turn of this capture is under way")
        self._whose_turn = threading.get_ident()
        self.turns += 1
        try:
            with watch():
                yield
        finally:
            self._whose_turn = None
            self._turn.release()

    @property
    def reserved_bytes(self) -> int:
        return self.graph.nbytes

    def close(self) -> None:
        if self.closed:
            return
        if self._turn.locked():
            raise GraphError("close: a turn is under way")
        self.graph.reset()
        self.closed = True
        self._device.closed += 1

    def _must_be_open(self, call: str) -> None:
        if self.closed:
            raise Stale(f"{call}: the capture is closed")


class StandInDevice(GraphDevice):
    """A device that records on CPU tensors.

    Attributes:
        captures: all that were opened, in that order.
        closed, replays: how many captures were closed, how many replays there were.
        warm_ups: how often something was warmed up.
    """

    def __init__(self) -> None:
        self.captures: list[StandInCapture] = []
        self.closed = self.replays = self.warm_ups = 0

    @property
    def opened(self) -> int:
        return len(self.captures)

    @property
    def reserved_bytes(self) -> int:
        """Of all captures."""
        return sum(capture.reserved_bytes for capture in self.captures)

    def watching(self) -> AbstractContextManager[Any]:
        """Inside, in this thread, a use of graph memory that CUDA would leave undefined raises."""
        return watch()

    @contextmanager
    def warming_up(self) -> Iterator[None]:
        if THREAD.graph is not None:
            THREAD.graph.refuse("warming_up: a capture is under way")
        self.warm_ups += 1
        with watch():
            yield

    def capture(self) -> StandInCapture:
        self.captures.append(StandInCapture(self))
        return self.captures[-1]
