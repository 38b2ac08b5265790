"""Early exit in packed layers against OpenVINO, on the demo's test texts, one at a time.

    python -m bench.cpu_texts             # after `make demo`; with the extra [peers]; 15 minutes
    python -m bench.cpu_texts --results   # the page again, from the committed figures

Every engine runs in a process of its own. They are asked in turn, and all but the asked one are
stopped. Nothing else should run meanwhile. Writes docs/cpu_texts.json and docs/cpu_texts.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from bench.cpu_peers.command import run
from bench.cpu_peers.environment import environment
from bench.cpu_peers.worker import Worker
from bench.cpu_texts import OWN, PAGE, RESULTS, TIMED
from bench.cpu_texts.data import texts
from bench.cpu_texts.engines import Answers, openvino, ours
from bench.cpu_texts.page import markdown
from bench.cpu_texts.workers import PACKAGES, workers
from eefast.measure import take_turns


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; see the module's docstring."""
    run(__doc__, PACKAGES, measured, markdown, RESULTS, PAGE, arguments)


def measured(rounds: int) -> Iterator[dict[str, Any]]:
    """What every engine answers and how long it takes, by engine and policy."""
    results: dict[str, Any] = {"environment": environment(*PACKAGES), "rounds": rounds}
    labels = texts("test").labels
    with workers(ours, openvino, results["environment"]["threads"]) as engines:
        print("timing", file=sys.stderr, flush=True)
        times = _times(engines, rounds)
    own = engines[OWN].ready[1]
    results["texts"] = len(labels)
    results["engines"] = [
        {
            "engine": name,
            "policy": policy,
            "way": worker.ready[0],
            **_compared(answers, own[policy], labels),
            "ms": times[name, policy],
        }
        for name, worker in engines.items()
        for policy, answers in worker.ready[1].items()
    ]
    yield results


def _times(engines: Mapping[str, Worker], rounds: int) -> dict[tuple[str, str], list[list[float]]]:
    """Of each engine and policy: the milliseconds of each text, by round."""
    kept: dict[tuple[str, str], list[list[float]]] = {
        (name, policy): [] for name, worker in engines.items() for policy in worker.ready[1]
    }

    def ask(name: str, policy: str) -> float:
        ms = engines[name].turn(policy)
        kept[name, policy].append([round(x, 4) for x in ms])
        return float(sum(ms))

    def asking(name: str, policy: str) -> Callable[[None], Callable[[], float]]:
        return lambda _: partial(ask, name, policy)

    turns = {" ".join(key): asking(*key) for key in kept}
    take_turns(turns, {"": lambda call: call()}, (None,), rounds=(rounds, rounds), progress=True)
    return {key: of_rounds[1:] for key, of_rounds in kept.items()}  # the first warms up


def _compared(answers: Answers, own: Answers, labels: Any) -> dict[str, Any]:
    return {
        "accuracy": float((answers.predictions == labels).double().mean()),
        "layers": float(answers.exit_layers.double().mean()),
        "layers_timed": float(answers.exit_layers[:TIMED].double().mean()),
        "exits_changed": int((answers.exit_layers != own.exit_layers).sum()),
        "answers_changed": int((answers.predictions != own.predictions).sum()),
    }


if __name__ == "__main__":
    main()
