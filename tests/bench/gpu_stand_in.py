"""A GPU of known costs, for the arithmetic of bench/gpu: time passes only when it is told to."""

from contextlib import contextmanager, nullcontext

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bench.gpu.timing import Gpu
from eefast.runtime.call_queue import CallQueue
from eefast.runtime.graph.device import Capture, GraphDevice

OP, KERNEL, IN_GRAPH = 7.0, 3.0, 2.0  # us: on the host, on a stream, in a graph
EXIT, COPY_ISSUE, COPY, ITEM = 5.0, 6.0, 1.5, 10.0
LAUNCH, NODE_OF_GRAPH, IF_TRUE, IF_FALSE = 11.0, 0.25, 4.0, 1.0


class Event:
    def __init__(self, gpu):
        self._gpu = gpu

    def record(self):
        self.at = self._gpu.time

    def synchronize(self):
        self._gpu.held = False

    def elapsed_time(self, end):
        return (end.at - self.at) / 1e3


class Queue(CallQueue):
    def __init__(self, gpu):
        super().__init__(torch.empty(1, 1, dtype=torch.int32))
        self._gpu = gpu

    def publish(self, slot, exit_layer):
        self._slots[slot].copy_(exit_layer)

    def poll(self, slot):
        self._gpu.time += 0.1
        return super().poll(slot)

    def wait(self, slot):
        self._gpu.time += 2.0

    def enqueue(self, work):
        work()

    def send(self, values):
        return torch.from_numpy(values)


class StandIn(Gpu, TorchDispatchMode):
    """While held, what is enqueued takes the GPU's time, else the host's."""

    device = "cpu"

    def __init__(self):
        super().__init__()
        self.time = 0.0
        self.held = False
        self.capture = None

    def synchronize(self):
        pass

    def event(self):
        return Event(self)

    def hold(self, us):
        self.held = True

    def now_us(self):
        return self.time

    def pinned(self, dtype):
        return torch.empty((), dtype=dtype)

    def call_queue(self):
        return Queue(self)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func)
        if self.capture is not None:
            self.capture.meets(name)
        elif name.startswith("aten.add_"):
            self.time += KERNEL if self.held else OP
        elif name.startswith("eefast.exit_step"):
            self.time += EXIT
        elif name.startswith("aten.copy_"):
            self.time += COPY if self.held else COPY_ISSUE
        elif name.startswith(("aten.item", "aten._local_scalar_dense")):
            self.time += ITEM
        return func(*args, **(kwargs or {}))


class GraphsOf(GraphDevice):
    """Captures on a stand-in; from `refuse_from` nodes on they fail."""

    def __init__(self, gpu, refuse_from=99):
        self._gpu = gpu
        self.refuse_from = refuse_from

    def warming_up(self):
        return nullcontext()

    def capture(self):
        return Graph(self._gpu, self.refuse_from)


class Graph(Capture):
    def __init__(self, gpu, refuse_from):
        self._gpu = gpu
        self._refuse_from = refuse_from
        self._us = 0.0
        self._nodes = self._met = 0
        self._skipping = 0

    @contextmanager
    def recording(self):
        self._gpu.capture = self
        try:
            yield
        finally:
            self._gpu.capture = None

    def meets(self, name):
        kernel = {"aten.add_": IN_GRAPH, "eefast.exit": EXIT}
        us = next((us for start, us in kernel.items() if name.startswith(start)), None)
        if us is not None:
            self._nodes += 1
            if not self._skipping:
                self._us += us

    @contextmanager
    def only_if(self, flag, handle=None):
        self._met += 1
        if self._met >= self._refuse_from:
            raise RuntimeError("no more nodes")
        if not self._skipping:
            self._us += IF_TRUE if flag else IF_FALSE
        self._skipping += not flag or bool(self._skipping)
        yield
        self._skipping -= self._skipping > 0

    def replay(self):
        assert self._gpu.capture is None
        self._gpu.time += self._us if self._gpu.held else LAUNCH + NODE_OF_GRAPH * self._nodes

    def turn(self):
        return nullcontext()

    @property
    def reserved_bytes(self):
        return 0

    def close(self):
        pass
