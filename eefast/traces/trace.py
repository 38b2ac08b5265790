"""`ExitTrace`: every exit's logits on a data set, recorded once and evaluated many times."""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from eefast.files import whole
from eefast.labels import check_labels
from eefast.traces.metrics import answers_of, check_metric, measure

_FORMAT = "eefast-trace-1"
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True, eq=False, repr=False)
class ExitTrace:
    """Logits of every exit for every sample of a data set, with the labels.

    Args:
        logits: [L, N, C] floats of 16, 32 or 64 bits; kept as float32, which policies judge.
        labels: [N] integers in [0, C), kept as int64; with C = 1, regression, [N] or [N, 1]
            numbers, kept as [N] float32.
        exit_layers: the 1-based layer after which each exit stands, ascending; (): after
            every layer.
        costs: relative cost of each layer up to the last exit's, greater than 0; (): all alike.
        scores: learned score of each exit, [L, N] floats, kept as float32; None: not kept.
        hidden: what each exit's head reads, L times [N, D] floats; D may differ; (): not kept.
        fingerprint: of the model and the data it was recorded from (see `cached_trace`); "":
            unknown.

    Raises:
        TypeError: logits, labels, scores or hidden are not tensors.
        ValueError: dtypes other than these, shapes that do not belong together, a label outside
            [0, C), or layers that are not whole numbers in ascending order.
    """

    logits: Tensor
    labels: Tensor
    exit_layers: tuple[int, ...] = ()
    costs: tuple[float, ...] = ()
    scores: Tensor | None = None
    hidden: tuple[Tensor, ...] = ()
    fingerprint: str = ""

    def __post_init__(self) -> None:
        _check_floats("logits", self.logits)
        if self.logits.dim() != 3 or 0 in (self.logits.shape[0], self.logits.shape[2]):
            raise ValueError(
                "logits must be [L, N, C], at least one exit and class, got "
                f"{list(self.logits.shape)}"
            )
        exits, samples, classes = self.logits.shape
        check_labels(self.labels, classes, samples)
        layers = _layers(self.exit_layers, exits)
        costs = tuple(map(float, self.costs)) or (1.0,) * layers[-1]
        if len(costs) != layers[-1] or not all(0 < cost < math.inf for cost in costs):
            raise ValueError(
                f"costs must be {layers[-1]} numbers greater than 0, one per layer, got {costs}"
            )
        scores = self.scores
        if scores is not None:
            _check_floats("scores", scores)
            if list(scores.shape) != [exits, samples]:
                raise ValueError(f"scores must be [{exits}, {samples}], got {list(scores.shape)}")
            scores = scores.float()
        hidden = tuple(self.hidden)
        for vectors in hidden:
            _check_floats("hidden", vectors)
        shapes = [list(vectors.shape) for vectors in hidden]
        if hidden and [shape[:-1] for shape in shapes] != [[samples]] * exits:
            raise ValueError(f"hidden must be {exits} times [{samples}, D], got {shapes}")
        object.__setattr__(self, "logits", self.logits.float())
        labels = self.labels.long() if classes > 1 else self.labels.float().reshape(samples)
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "exit_layers", layers)
        object.__setattr__(self, "costs", costs)
        object.__setattr__(self, "scores", scores)
        object.__setattr__(self, "hidden", hidden)

    def __repr__(self) -> str:
        exits, samples, classes = self.logits.shape
        if classes == 1:
            return f"ExitTrace({exits} exits, {samples} samples, one output)"
        accuracies = ", ".join(f"{accuracy:.3f}" for accuracy in self.accuracies())
        return (
            f"ExitTrace({exits} exits, {samples} samples, {classes} classes; "
            f"accuracy of each exit: {accuracies})"
        )

    @property
    def num_exits(self) -> int:
        return self.logits.shape[0]

    @property
    def num_classes(self) -> int:
        return self.logits.shape[2]

    def metric(self, name: str) -> Tensor:
        """A metric of each exit over all samples, [L] float64; see `eefast.traces.metrics.measure`.

        Raises:
            ValueError: an unknown metric, or one that is not of this task.
            ModuleNotFoundError: the package that it needs is not installed.
        """
        check_metric(name, self.num_classes)
        answers = answers_of(self.logits)
        values = [measure(name, self.labels, answer, self.num_classes) for answer in answers]
        return torch.tensor(values, dtype=torch.float64)

    def accuracies(self) -> Tensor:
        """Accuracy of each exit over all samples, [L] float64.

        Raises:
            ValueError: of a model with one output (regression): see `metric`.
        """
        return self.metric("accuracy")

    def exits_at_chance(self) -> list[int]:
        """The exits (1-based) no better than always answering the most frequent class.

        That is, by less than two standard errors of its share. No policy gains by such an exit: it
        wants more training, more data or another learning rate.

        Raises:
            ValueError: of a model with one output (regression), which has no such answer.
        """
        check_metric("accuracy", self.num_classes)
        samples = len(self.labels)
        if not samples:
            return []
        share = self.labels.bincount().max().item() / samples
        limit = share + 2 * math.sqrt(share * (1 - share) / samples)
        return [i for i, a in enumerate(self.accuracies().tolist(), 1) if a <= limit]

    def save(self, path: str | Path) -> None:
        """Write the trace to a safetensors file, whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        tensors = {"logits": self.logits, "labels": self.labels}
        if self.scores is not None:
            tensors["scores"] = self.scores
        tensors.update((f"hidden.{i}", vectors) for i, vectors in enumerate(self.hidden, 1))
        metadata = {
            "format": _FORMAT,
            "exit_layers": json.dumps(self.exit_layers),
            "costs": json.dumps(self.costs),
            "fingerprint": self.fingerprint,
        }
        with whole(path) as new:
            save_file({name: t.contiguous() for name, t in tensors.items()}, new, metadata)

    @classmethod
    def load(cls, path: str | Path) -> ExitTrace:
        """Read a trace that `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is not a trace, or is damaged.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != _FORMAT:
                    raise ValueError(f"{path} is not an eefast trace: its metadata is {metadata}")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path} is not a safetensors file, or is damaged: {error}") from None
        missing = sorted({"logits", "labels"} - tensors.keys())
        if missing:
            raise ValueError(f"{path} holds no {' and no '.join(missing)}, only {sorted(tensors)}")
        exits = tensors["logits"].shape[:1].numel()
        hidden = [tensors.get(f"hidden.{i}") for i in range(1, exits + 1)]
        try:
            return cls(
                tensors["logits"],
                tensors["labels"],
                _header(metadata, "exit_layers"),
                _header(metadata, "costs", "[]"),  # traces of version 0.1 have none
                tensors.get("scores"),
                tuple(vectors for vectors in hidden if vectors is not None),
                metadata.get("fingerprint", ""),
            )
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} is no trace that eefast wrote: {error}") from None


def _check_floats(name: str, values: Any) -> None:
    if not isinstance(values, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(values).__name__}")
    if values.dtype not in _FLOATS:
        raise ValueError(f"{name} must be floats of 16, 32 or 64 bits, got {values.dtype}")


def _layers(given: Iterable[Any], exits: int) -> tuple[int, ...]:
    given = tuple(given)
    try:
        layers = tuple(map(operator.index, given)) or tuple(range(1, exits + 1))
    except TypeError:
        layers = ()
    if (
        len(layers) != exits
        or sorted(set(layers)) != list(layers)
        or layers[0] < 1
        or any(isinstance(layer, bool) for layer in given)
    ):
        raise ValueError(
            f"exit_layers must be {exits} ascending layers, whole numbers from 1 up, got {given}"
        )
    return layers


def _header(metadata: dict[str, str], name: str, default: str = "") -> tuple[Any, ...]:
    text = metadata.get(name, default)
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, list):
        raise ValueError(f"its header must hold {name}, a list, got {text!r}")
    return tuple(values)
