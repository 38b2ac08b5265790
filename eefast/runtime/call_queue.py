"""`CallQueue`: how the host hands the work of one call to a device and reads its decisions.

All that the run-ahead runtime needs of a device is here, so that its tests can replace the GPU by a
slow and irregular stand-in.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_NOT_ARRIVED = -1
"""A value that `exit_layer` never has."""


class CallQueue(abc.ABC):
    """The work of one call, done by the device in the order in which it was enqueued.

    News come back through slots in host memory, one per exit that the host may ask about. A slot
    takes a copy of `exit_layer` as that exit left it: it says who is running and so whether any
    sample is, in one copy and without a kernel that would count.

    The slots belong to this call alone: what arrives late, after the call was given up, is never
    read.

    Args:
        slots: [S, N] int32 in host memory that the device can write to; overwritten.
    """

    def __init__(self, slots: Tensor) -> None:
        self._slots = slots
        self._seen = slots.numpy()
        self._seen.fill(_NOT_ARRIVED)

    def poll(self, slot: int) -> npt.NDArray[np.int32] | None:
        """The `exit_layer` [N] published to a slot, or None until all of it has arrived.

        Reads host memory and does not wait.
        """
        exit_layer = self._seen[slot]
        return None if exit_layer.min() == _NOT_ARRIVED else exit_layer

    @abc.abstractmethod
    def wait(self, slot: int) -> npt.NDArray[np.int32]:
        """The `exit_layer` [N] published to a slot, when it has arrived."""

    @abc.abstractmethod
    def enqueue(self, work: Callable[[], None]) -> None:
        """Enqueue `work` after all that was enqueued before."""

    @abc.abstractmethod
    def publish(self, slot: int, exit_layer: Tensor) -> None:
        """Enqueue a copy of `exit_layer` ([N] int32) to a slot; each slot once."""

    @abc.abstractmethod
    def send(self, values: npt.NDArray[Any]) -> Tensor:
        """A copy of `values` on the device, for work enqueued from now on."""


class CudaQueue(CallQueue):
    """The current stream of a CUDA device: enqueueing work is calling it.

    The slots are pinned memory from PyTorch's caching allocator, which reuses a block only when
    the copies into it are done, however the call ended.
    """

    def __init__(self, slots: int, samples: int, device: torch.device) -> None:
        super().__init__(torch.empty(slots, samples, dtype=torch.int32, pin_memory=True))
        self._device = device
        self._stream = torch.cuda.current_stream(device)
        self._arrivals: dict[int, torch.cuda.Event] = {}

    def wait(self, slot: int) -> npt.NDArray[np.int32]:
        self._arrivals[slot].synchronize()
        exit_layer: npt.NDArray[np.int32] = self._seen[slot]
        return exit_layer

    def enqueue(self, work: Callable[[], None]) -> None:
        work()

    def publish(self, slot: int, exit_layer: Tensor) -> None:
        self._slots[slot].copy_(exit_layer, non_blocking=True)
        self._arrivals[slot] = torch.cuda.Event()
        self._arrivals[slot].record(self._stream)

    def send(self, values: npt.NDArray[Any]) -> Tensor:
        # From pageable memory the copy might wait for the stream.
        return torch.from_numpy(values).pin_memory().to(self._device, non_blocking=True)
