"""Ragged batches with early exit against OpenVINO, on the demo's test texts.

    python -m bench.cpu_batches             # after `make demo`; with the extra [peers]; 10 minutes
    python -m bench.cpu_batches --results   # the page again, from the committed figures

Every engine runs in a process of its own. They are asked in turn, and all but the asked one are
stopped. Nothing else should run meanwhile. Writes docs/cpu_batches.json and docs/cpu_batches.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from bench.cpu_batches import PAGE, RESULTS, SIZES, TEXTS
from bench.cpu_batches.engines import openvino, ours
from bench.cpu_batches.page import markdown
from bench.cpu_peers.command import run
from bench.cpu_peers.environment import environment
from bench.cpu_texts.workers import PACKAGES, workers
from eefast.measure import take_turns


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; see the module's docstring."""
    run(__doc__, PACKAGES, measured, markdown, RESULTS, PAGE, arguments)


def measured(rounds: int) -> Iterator[dict[str, Any]]:
    """The seconds that every engine takes for all texts, by policy, size and round."""
    results: dict[str, Any] = {"environment": environment(*PACKAGES), "rounds": rounds}
    with workers(ours, openvino, results["environment"]["threads"]) as engines:
        turns = {
            (name, policy, size): partial(worker.turn, (policy, size))
            for name, worker in engines.items()
            for policy in worker.ready[1]
            for size in SIZES
        }
        times = take_turns(
            {str(key): lambda _, turn=turn: turn for key, turn in turns.items()},
            {"": lambda turn: turn()},
            (None,),
            rounds=(rounds, rounds),
            progress=True,
        )[""]
    results["texts"] = TEXTS
    results["engines"] = [
        {
            "engine": name,
            "policy": policy,
            "way": worker.ready[0],
            **answered,
            "seconds": {
                str(size): times[str((name, policy, size))][:, 0].round(4).tolist()
                for size in SIZES
            },
        }
        for name, worker in engines.items()
        for policy, answered in worker.ready[1].items()
    ]
    yield results


if __name__ == "__main__":
    main()
