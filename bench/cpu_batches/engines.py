"""The engines, each in its own process: what they answer in batches, and how long that takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from bench.cpu_batches import SIZES, TEXTS
from bench.cpu_peers.engines import openvino_hints
from bench.cpu_peers.worker import Engine
from bench.cpu_texts import CUT, DEPTH, EXITS, NEVER, OWN, POLICY
from bench.cpu_texts.data import model, texts
from eefast import compile
from eefast.policies import Budgeted, Never

Batch = Mapping[str, Tensor]
Answers = tuple[list[int], list[int]]
"""The classes of all texts, and the layers after which they were answered."""

AnswerAll = Callable[[Sequence[Any]], Answers]


def batches(singles: Sequence[Batch], size: int) -> list[Batch]:
    """Texts [1, T] in batches [size, T'], padded behind as a tokenizer does."""
    return [
        {
            name: pad_sequence([one[name][0] for one in singles[i : i + size]], batch_first=True)
            for name in singles[i]
        }
        for i in range(0, len(singles), size)
    ]


def ours(layers: str) -> Engine:
    """eefast, with the model's own layers or with packed ones of that precision."""
    trained = model()
    fast = compile(trained, Never(), dtype=None if layers == OWN else layers)
    policies = {NEVER: Never()}
    if layers != OWN:
        policies |= {EXITS: trained.get_policy(POLICY), CUT: Budgeted(DEPTH)}

    def answer(given: Sequence[Batch]) -> Answers:
        predictions: list[int] = []
        exits: list[int] = []
        for batch in given:
            output = fast(**batch)
            predictions += output.prediction.tolist()
            exits += output.exit_layer.tolist()
        return predictions, exits

    def choose(policy: Any) -> AnswerAll:
        fast.policy = policy
        return answer

    return _engine(
        {title: lambda policy=policy: choose(policy) for title, policy in policies.items()},
        fast.lowering,
        lambda batch: batch,
    )


def openvino(files: Mapping[str, Path], hints: tuple[str, ...], threads: int) -> Engine:
    """OpenVINO on a file for each depth: the fastest of its precisions for what is not int8, and of
    one request on all threads and one on each."""
    depths = {NEVER: model().layers.depth, CUT: DEPTH}
    given = [_numbers(batch) for batch in batches(texts("test").inputs[:TEXTS], SIZES[1])]
    chosen: dict[str, Callable[[], AnswerAll]] = {}
    ways = []
    for title, file in files.items():
        answers = {
            f"{hint}, {goal.lower()}": _asynchronous(file, hint, goal, threads, depths[title])
            for hint in openvino_hints(hints)
            for goal in ("LATENCY", "THROUGHPUT")
        }
        seconds = {
            way: min(_seconds(answer, given) for _ in range(3)) for way, answer in answers.items()
        }
        fastest = min(seconds, key=seconds.__getitem__)
        ways.append(fastest)
        chosen[title] = lambda answer=answers[fastest]: answer
    return _engine(chosen, f"any shape; {' and '.join(dict.fromkeys(ways))}", _numbers)


def _asynchronous(file: Path, hint: str, goal: str, threads: int, depth: int) -> AnswerAll:
    import openvino as ov

    core = ov.Core()
    config = {
        "PERFORMANCE_HINT": goal,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": hint,
    }
    queue = ov.AsyncInferQueue(core.compile_model(core.read_model(file), "CPU", config))
    found: dict[int, list[int]] = {}

    def keep(request: Any, number: int) -> None:
        found[number] = np.argmax(request.get_output_tensor(0).data, -1).tolist()

    queue.set_callback(keep)

    def answer(given: Sequence[Any]) -> Answers:
        for number, batch in enumerate(given):
            queue.start_async(batch, number)
        queue.wait_all()
        predictions = [one for number in range(len(given)) for one in found[number]]
        return predictions, [depth] * len(predictions)

    return answer


def _numbers(batch: Batch) -> dict[str, Any]:
    return {name: tensor.numpy() for name, tensor in batch.items()}


def _engine(
    choices: Mapping[str, Callable[[], AnswerAll]], way: str, convert: Callable[[Batch], Any]
) -> Engine:
    """Its turns: asked for a policy and a size, the seconds that all texts take."""
    singles = texts("test").inputs[:TEXTS]
    given = {size: list(map(convert, batches(singles, size))) for size in (1, *SIZES)}
    answered: dict[str, dict[str, Any]] = {}
    for title, choose in choices.items():
        answer = choose()
        alone = np.array(answer(given[1]))
        answered[title] = {
            "layers": float(alone[1].mean()),
            "differ": [
                int((np.array(answer(given[size])) != alone).any(0).sum()) for size in SIZES
            ],
        }

    def turn(asked: tuple[str, int]) -> float:
        title, size = asked
        return _seconds(choices[title](), given[size])

    return Engine((way, answered), turn)


def _seconds(answer: AnswerAll, given: Sequence[Any]) -> float:
    """Of all batches, one after the other; the first warms up."""
    answer(given[:1])
    start = time.perf_counter_ns()
    answer(given)
    return (time.perf_counter_ns() - start) / 1e9
