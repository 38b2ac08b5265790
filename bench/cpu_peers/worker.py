"""An engine in a process of its own, which is stopped except while it is asked."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

_ENDING_S = 10


class EngineError(Exception):
    """An engine could not be set up, or its process ended."""


class Engine(NamedTuple):
    """An engine that is set up, in its process."""

    ready: Any  # what is told of it
    turn: Callable[[Any], Any]  # from what is asked to what is answered


class Worker:
    """The engine's process. Threads that still wait for work after a call would slow the others:
    between its turns the whole process is stopped.

    Args:
        set_up: is called in that process; it is sent there by name.

    Attributes:
        ready: as `Engine.ready`.

    Raises:
        EngineError: the engine cannot be set up; the message says why.
    """

    def __init__(self, set_up: Callable[[], Engine]) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, set_up), daemon=True)
        self._process.start()
        theirs.close()
        try:
            self.ready = self._answer()
        except BaseException:
            self.close()
            raise

    def turn(self, what: Any = None) -> Any:
        """What the engine answers, asked for `what`.

        Raises:
            EngineError: it failed, or its process ended.
        """
        self._signal(signal.SIGCONT)
        try:
            self._pipe.send(what)
        except OSError:
            raise self._ended() from None
        return self._answer()

    def close(self) -> None:
        """End the process: by itself, where it can."""
        self._pipe.close()
        if self._process.is_alive():
            self._signal(signal.SIGCONT)
        self._process.join(_ENDING_S)
        self._process.kill()
        self._process.join()

    def _answer(self) -> Any:
        try:
            answer = self._pipe.recv()
        except (EOFError, OSError):
            raise self._ended() from None
        if isinstance(answer, str):
            raise EngineError(answer)
        self._signal(signal.SIGSTOP)
        return answer

    def _ended(self) -> EngineError:
        self._process.join()
        return EngineError(f"its process ended with {self._process.exitcode}")

    def _signal(self, number: signal.Signals) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)


def serve(pipe: Connection, set_up: Callable[[], Engine]) -> None:
    """The process: sets the engine up, then answers every message."""
    # A group of its own: Ctrl-C reaches the parent alone, which ends its workers. Should the parent
    # be killed, the kernel wakes and ends the stopped processes of a group that it leaves behind.
    os.setpgid(0, 0)
    try:
        engine = set_up()
        pipe.send(engine.ready)
        while True:
            pipe.send(engine.turn(pipe.recv()))
    except (EOFError, BrokenPipeError):
        pass  # the parent has closed it
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")
