"""The engines on the demo's model, each set up in a process of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from tqdm.auto import tqdm

from bench.cpu_peers.worker import Engine, Worker
from bench.cpu_texts import OWN, PEERS, PRECISIONS
from bench.cpu_texts.export import export

PACKAGES = "openvino", "nncf"
_HINTS = {"OpenVINO fp32": ("f32",), "OpenVINO int8": ("f32", "bf16")}
"""Precisions of what is not int8 in a file."""


@contextmanager
def workers(
    ours: Callable[[str], Engine],
    openvino: Callable[[Mapping[str, Path], tuple[str, ...], int], Engine],
    threads: int,
) -> Iterator[dict[str, Worker]]:
    """By engine, its process, which ends with the context.

    Args:
        ours: sets eefast up, with the model's own layers or with packed ones of a precision.
        openvino: sets OpenVINO up, on the files of each policy, with one of some precisions.
        threads: of OpenVINO.
    """
    with tempfile.TemporaryDirectory() as made, ExitStack() as ends:
        # In a process of its own: what it needs of memory is then free again.
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            files = pool.submit(export, Path(made)).result()
        set_ups: dict[str, Callable[[], Engine]] = {
            name: partial(ours, name) for name in (OWN, *PRECISIONS)
        }
        set_ups |= {name: partial(openvino, files[name], _HINTS[name], threads) for name in PEERS}
        ready: dict[str, Worker] = {}
        for name, set_up in tqdm(set_ups.items(), desc="answering all texts", disable=None):
            ready[name] = Worker(set_up)
            ends.callback(ready[name].close)
        yield ready
