"""What the graph runtime asks of a device: to record work once, and to do it again on demand.

All that the runtime knows of CUDA is behind `GraphDevice` and `Capture`, so that its tests can
replace the GPU by a recorder.
"""

from __future__ import annotations

import abc
from contextlib import AbstractContextManager

from torch import Tensor


class Capture(abc.ABC):
    """Work that is recorded once and then done again as often as wanted, with one launch each."""

    @abc.abstractmethod
    def recording(self) -> AbstractContextManager[None]:
        """Work issued inside is recorded, not done.

        Tensors made inside keep their memory until `close`. If the context raises, the capture
        is unusable.
        """

    @abc.abstractmethod
    def only_if(self, flag: Tensor, handle: Tensor | None = None) -> AbstractContextManager[None]:
        """Inside `recording`: work issued inside is done only if `flag` is true when it is reached.

        Contexts nest; an inner one is the last work of the one around it.

        Args:
            flag: bool scalar on the device.
            handle: int64 scalar on the device, if the work before can set the condition itself:
                it then sets the conditional handle whose number it finds here. A device
                without such handles ignores it and reads `flag`.
        """

    @abc.abstractmethod
    def replay(self) -> None:
        """Enqueue all that was recorded, on the current stream."""

    @abc.abstractmethod
    def turn(self) -> AbstractContextManager[None]:
        """Work enqueued inside comes after that of all earlier turns, whatever their streams."""

    @property
    @abc.abstractmethod
    def reserved_bytes(self) -> int:
        """The device memory that the tensors made inside `recording` hold."""

    @abc.abstractmethod
    def close(self) -> None:
        """Wait until the last turn's work is done, and free the memory."""


class GraphDevice(abc.ABC):
    """A device that records work."""

    @abc.abstractmethod
    def warming_up(self) -> AbstractContextManager[None]:
        """Work issued inside is done once, so that it can be recorded afterwards."""

    @abc.abstractmethod
    def capture(self) -> Capture:
        """A new, empty capture."""
