"""An engine in a process of its own, which is stopped except while it is asked."""

from __future__ import annotations

import gc
import os
import signal
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.cpu_peers.engines import ENGINES, Run, Setup
from bench.cpu_peers.models import texts
from eefast.measure import time_interleaved

SECONDS = 0.5
"""For the calls of one turn."""

_ENDING_S = 10


class EngineError(Exception):
    """An engine could not be set up, or its process ended."""


class Ready(NamedTuple):
    """What an engine says when it is set up."""

    way: str
    logits: Tensor  # (texts, classes), float32


class Worker:
    """The engine's process. Threads that still wait for work after a call would slow the others:
    between its turns the whole process is stopped.

    Raises:
        EngineError: the engine cannot be set up; the message says why.
    """

    def __init__(self, engine: str, setup: Setup) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, engine, setup), daemon=True)
        self._process.start()
        theirs.close()
        try:
            self.ready: Ready = self._answer()
        except BaseException:
            self.close()
            raise

    def time(self) -> float:
        """Milliseconds of a call, the median of one turn."""
        self._signal(signal.SIGCONT)
        try:
            self._pipe.send(None)
        except OSError:
            raise self._ended() from None
        answer: float = self._answer()
        return answer

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


def serve(pipe: Connection, engine: str, setup: Setup) -> None:
    """The process: sets the engine up, then answers every message with the time of a call."""
    # A group of its own: Ctrl-C reaches the parent alone, which ends its workers. Should the parent
    # be killed, the kernel wakes and ends the stopped processes of a group that it leaves behind.
    os.setpgid(0, 0)
    try:
        given: list[dict[str, Any]] = [*texts(setup.length)]
        if ENGINES[engine].export:
            given = [{name: ids.numpy() for name, ids in text.items()} for text in given]
        way, run, rounds = _fastest(engine, setup, given)
        logits = [torch.as_tensor(run(**text)).float() for text in given]
        pipe.send(Ready(way, torch.cat(logits)))
        while True:
            pipe.recv()
            pipe.send(time_interleaved({"": run}, given, rounds=rounds)[""].p50_ms)
    except (EOFError, BrokenPipeError):
        pass  # the parent has closed it
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")


def _fastest(engine: str, setup: Setup, given: list[dict[str, Any]]) -> tuple[str, Run, int]:
    """The way that is fastest here, by name, and how many rounds of all texts fill a turn."""
    ways = ENGINES[engine].ways(setup)
    times = time_interleaved(ways, given, rounds=5)
    way = min(ways, key=lambda name: times[name].p50_ms)
    run = ways[way]
    del ways
    gc.collect()
    return way, run, max(3, round(SECONDS * 1e3 / times[way].total_ms))
