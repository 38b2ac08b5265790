"""`StandInDevice` and its captures; see the package."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor

from eefast.runtime.graph.device import Capture, GraphDevice
from eefast.runtime.graph.if_nodes import torch_if_node
from tests.runtime.graph.stand_in.memory import THREAD, GraphError, Stale, watch
from tests.runtime.graph.stand_in.recording import StandInGraph


class StandInCapture(Capture):
    """A capture of a `StandInDevice`.

    Attributes:
        graph: its StandInGraph, whose counters say what was captured and done.
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
        """Inside, in this thread, a use of graph memory that is undefined in CUDA raises."""
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
