"""What the graph runtime asks of a device: to record work once, and to do it again on demand.

All that the runtime knows of CUDA is behind `GraphDevice` and `Capture`, so that its tests can put
a recorder of their own in the place of a GPU.
"""

from __future__ import annotations

import abc
from contextlib import AbstractContextManager

from torch import Tensor


class Capture(abc.ABC):
    """Work that is recorded once and then done again as often as wanted, with one launch each."""

    @abc.abstractmethod
    def recording(self) -> AbstractContextManager[None]:
        """Work issued inside is recorded and not done.

        Tensors made inside keep their memory until `close`. If an exception leaves the context, the
        capture is of no further use.
        """

    @abc.abstractmethod
    def only_if(self, flag: Tensor, handle: Tensor | None = None) -> AbstractContextManager[None]:
        """Inside `recording`: work issued inside is done only if `flag` is true when it is reached.

        Contexts nest; an inner one is the last work of the one around it.

        Args:
            flag: bool scalar on the device.
            handle: int64 scalar on the device, if the work before gives the condition of its own
                accord: it then sets the conditional handle whose number it finds here. A device
                that has no use for that ignores it and reads `flag`.
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
        """Wait until the last turn's work is done, and give the memory back."""


class GraphDevice(abc.ABC):
    """A device that records work."""

    @abc.abstractmethod
    def warming_up(self) -> AbstractContextManager[None]:
        """Work issued inside is done, in the way that makes what follows ready to be recorded."""

    @abc.abstractmethod
    def capture(self) -> Capture:
        """A new, empty capture."""
