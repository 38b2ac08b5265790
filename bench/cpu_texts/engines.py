"""The engines, each in its own process: what they answer, and how long a text takes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bench.cpu_peers.engines import Run, openvino_hints, openvino_request
from bench.cpu_peers.worker import Engine
from bench.cpu_texts import CUT, DEPTH, EXITS, NEVER, OWN, POLICY, TIMED
from bench.cpu_texts.data import model, texts
from eefast import compile
from eefast.policies import Budgeted, Never

Answer = Callable[[Any], tuple[int, int]]
"""From the inputs of a text to its class and the layer after which it was answered."""


class Answers(NamedTuple):
    """Of all test texts."""

    predictions: Tensor
    exit_layers: Tensor


def ours(layers: str) -> Engine:
    """eefast, with the model's own layers or with packed ones of that precision."""
    trained = model()
    exits = trained.get_policy(POLICY)
    if exits is None:
        sys.exit(f"the model has no policy {POLICY!r}: run `make demo` again")
    fast = compile(trained, Never(), dtype=None if layers == OWN else layers)

    def answer(inputs: Mapping[str, Tensor]) -> tuple[int, int]:
        output = fast(**inputs)
        return int(output.prediction), int(output.exit_layer)

    def choose(policy: Any) -> Answer:
        fast.policy = policy
        return answer

    policies = {NEVER: Never(), EXITS: exits, CUT: Budgeted(DEPTH)}
    choices = {title: partial(choose, policy) for title, policy in policies.items()}
    return _engine(choices, texts("test").inputs, fast.lowering)


def openvino(files: Mapping[str, Path], hints: tuple[str, ...], threads: int) -> Engine:
    """OpenVINO, on a file for each depth; the fastest of some precisions for what is not int8."""
    depths = {NEVER: model().layers.depth, CUT: DEPTH}
    given = [{k: v.numpy() for k, v in text.items()} for text in texts("test").inputs]
    choices: dict[str, Callable[[], Answer]] = {}
    fastest = []
    for title, file in files.items():
        answers = {
            hint: partial(_infer, openvino_request(file, -1, threads, hint), depths[title])
            for hint in openvino_hints(hints)
        }
        hint = min(answers, key=lambda hint: sum(_times(answers[hint], given[:TIMED])))
        fastest.append(hint)
        choices[title] = partial(_itself, answers[hint])
    return _engine(choices, given, f"any length, {' and '.join(dict.fromkeys(fastest))}")


def _infer(run: Run, depth: int, inputs: Any) -> tuple[int, int]:
    return int(np.argmax(run(**inputs))), depth


def _itself(answer: Answer) -> Answer:
    return answer


def _engine(choices: Mapping[str, Callable[[], Answer]], given: list[Any], way: str) -> Engine:
    """Its turns: asked for a policy, the milliseconds of each of the first texts."""
    answered = {}
    for title, choose in choices.items():
        found = list(map(choose(), given))
        predictions, layers = zip(*found, strict=True)
        answered[title] = Answers(torch.tensor(predictions), torch.tensor(layers))
    return Engine((way, answered), lambda title: _times(choices[title](), given[:TIMED]))


def _times(answer: Answer, given: list[Any]) -> list[float]:
    """Milliseconds of each text, one after the other; the first ones warm up."""
    for inputs in given[:10]:
        answer(inputs)
    times = []
    for inputs in given:
        start = time.perf_counter_ns()
        answer(inputs)
        times.append((time.perf_counter_ns() - start) / 1e6)
    return times
