"""Stand-ins for a GPU's stream, on CPU tensors: call queues that work as late as a test wants.

`StandIn` is a device with a worker thread and random lags. `Late` works only when it is waited for,
`Instant` before the host looks again: the two extremes, both deterministic.

What a CUDA stream gives, they give: work is done in the order of enqueueing, and fresh host memory
holds what was left there. On `StandIn`, copies land in pieces, all calls share the one device,
and work that fails is heard of by whoever waits.
"""

import itertools
import queue
import threading
import time
from collections import deque

import torch

from eefast.runtime.call_queue import CallQueue

LEFT_BEHIND = 7
"""What fresh host memory holds: unless it is overwritten, it says that all have exited."""


class _OnTheCpu(CallQueue):
    def __init__(self, slots, samples, device):
        super().__init__(torch.full((slots, samples), LEFT_BEHIND, dtype=torch.int32))
        self.waits = 0

    def send(self, values):
        return torch.from_numpy(values.copy())


class Late(_OnTheCpu):
    """Does nothing until the host waits, and then no more than it must."""

    def __init__(self, slots, samples, device):
        super().__init__(slots, samples, device)
        self._pending = deque()
        self._landed = set()

    def enqueue(self, work):
        self._pending.append(work)

    def publish(self, slot, exit_layer):
        def land():
            self._slots[slot] = exit_layer
            self._landed.add(slot)

        self.enqueue(land)

    def wait(self, slot):
        self.waits += 1
        self._work_until(lambda: slot in self._landed)
        return self._seen[slot]

    def finish(self):
        """Do all that was enqueued."""
        self._work_until(lambda: not self._pending)

    @torch.inference_mode()
    def _work_until(self, done):
        while not done():
            self._pending.popleft()()


class Instant(Late):
    """Has done everything before the host looks again; so an error comes out of `enqueue`."""

    def enqueue(self, work):
        super().enqueue(work)
        self.finish()


class StandIn:
    """A device with one worker thread, which lags before each piece of work.

    `device.queue` is the `new_queue` of a runtime. As a context manager it waits for all work at
    the end and raises what the work raised, as reading a result does on a GPU.

    Args:
        lags: in seconds, taken in turn.
    """

    def __init__(self, lags=(0.0,)):
        self._lags = itertools.cycle(lags)
        self._pending = queue.SimpleQueue()
        self._errors = []
        self._worker = threading.Thread(target=self._run, daemon=True)
        self._worker.start()

    def queue(self, slots, samples, device):
        """The queue of a new call."""
        return _StandInQueue(self, slots, samples, device)

    def synchronize(self):
        """Wait for all work and raise the first error not heard of yet."""
        idle = threading.Event()
        self._pending.put((None, idle.set))
        assert idle.wait(30), "the device hangs"
        errors, self._errors = self._errors, []
        if errors:
            raise errors[0]

    def lag(self):
        time.sleep(next(self._lags))

    def put(self, call, work):
        self._pending.put((call, work))

    @torch.inference_mode()
    def _run(self):
        while True:
            call, work = self._pending.get()
            if call is None:
                if work is None:
                    return
                work()
                continue
            self.lag()
            if call.error is None:  # nothing runs after a failure
                try:
                    work()
                except Exception as error:
                    self._errors.append(error)
                    call.fail(error)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                self.synchronize()
        finally:
            self._pending.put((None, None))
            self._worker.join(30)


class _StandInQueue(_OnTheCpu):
    def __init__(self, device, slots, samples, torch_device):
        super().__init__(slots, samples, torch_device)
        self.error = None
        self._device = device
        self._landed = [threading.Event() for _ in range(slots)]
        self._landing = threading.Lock()

    def fail(self, error):
        self.error = error
        for landed in self._landed:  # the next wait raises it
            landed.set()

    def poll(self, slot):
        with self._landing:
            exit_layer = super().poll(slot)
            written = self._landed[slot].is_set()
        assert exit_layer is None or written, "a slot was read before it was written"
        return exit_layer

    def wait(self, slot):
        self.waits += 1
        assert self._landed[slot].wait(30), "waiting for what never comes"
        if self.error is not None:
            raise self.error
        return self._seen[slot]

    def enqueue(self, work):
        self._device.put(self, work)

    def publish(self, slot, exit_layer):
        first = len(exit_layer) // 2

        def land():
            self._slots[slot, :first] = exit_layer[:first]
            self._device.lag()
            with self._landing:
                self._slots[slot, first:] = exit_layer[first:]
                self._landed[slot].set()

        self.enqueue(land)
