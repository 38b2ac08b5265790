"""`ExitTrace`: every exit's logits on a data set, recorded once and judged many times."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from eefast.labels import check_labels

_FORMAT = "eefast-trace-1"


@dataclass(frozen=True)
class ExitTrace:
    """Logits of every exit for every sample of a data set, with the labels.

    Args:
        logits: [L, N, C] float32.
        labels: [N] int64, in [0, C).
        exit_layers: the 1-based layer after which each exit stands, ascending; None: after
            every layer.

    Raises:
        ValueError: shapes that do not belong together, or a label outside [0, C).
    """

    logits: Tensor
    labels: Tensor
    exit_layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.logits.dim() != 3 or 0 in (self.logits.shape[0], self.logits.shape[2]):
            raise ValueError(
                "logits must be [L, N, C], at least one exit and class, got "
                f"{list(self.logits.shape)}"
            )
        exits, samples, classes = self.logits.shape
        if list(self.labels.shape) != [samples]:
            raise ValueError(f"labels must be [{samples}], got {list(self.labels.shape)}")
        check_labels(self.labels, classes)
        layers = tuple(self.exit_layers) or tuple(range(1, exits + 1))
        if len(layers) != exits or sorted(set(layers)) != list(layers) or layers[0] < 1:
            raise ValueError(f"exit_layers must be {exits} ascending layers, got {layers}")
        object.__setattr__(self, "exit_layers", layers)

    @property
    def num_exits(self) -> int:
        return self.logits.shape[0]

    @property
    def num_classes(self) -> int:
        return self.logits.shape[2]

    def accuracies(self) -> Tensor:
        """Accuracy of each exit over all samples, [L] float64."""
        return (self.logits.argmax(-1) == self.labels).double().mean(-1)

    def save(self, path: str | Path) -> None:
        """Write the trace to a safetensors file."""
        tensors = {"logits": self.logits.contiguous(), "labels": self.labels.contiguous()}
        metadata = {"format": _FORMAT, "exit_layers": json.dumps(self.exit_layers)}
        # A file of that name is a whole one, wherever writing it was interrupted.
        unfinished = Path(f"{path}.part")
        save_file(tensors, unfinished, metadata)
        unfinished.replace(path)

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
                layers = tuple(json.loads(metadata["exit_layers"]))
                return cls(file.get_tensor("logits"), file.get_tensor("labels"), layers)
        except SafetensorError as error:
            raise ValueError(f"{path} is not a safetensors file, or is damaged: {error}") from None


def record_trace(
    model: PreTrainedModel,
    data: Iterable[Mapping[str, Any]],
    *,
    progress: bool = False,
) -> ExitTrace:
    """Run a multi-exit model at full depth over labelled data and keep every exit's logits.

    Args:
        model: a `MultiExitModel`; run in evaluation mode, its mode is put back afterwards.
        data: batches as the model takes them, each with "labels", e.g. a `DataLoader`.
        progress: show a progress bar.

    Raises:
        ValueError: no batch, a batch without labels, a label outside [0, C), or a regression
            model, whose one output has no class probabilities to judge.
        TypeError: not a multi-exit model, or data that is one batch rather than an iterable.
    """
    if isinstance(data, Mapping):
        raise TypeError(f"data must be an iterable of batches, got one batch ({sorted(data)})")
    if not hasattr(model, "heads"):
        raise TypeError(f"model must be a MultiExitModel, got {type(model).__name__}")
    if model.config.num_labels == 1:
        raise ValueError("a trace is of class probabilities, and a regression model has none")
    logits, labels = [], []
    training = model.training
    model.eval()
    try:
        for number, batch in enumerate(tqdm(data, "recording", disable=not progress)):
            inputs = dict(batch)
            given = inputs.pop("labels", None)
            if given is None:
                raise ValueError(f"batch {number} has no 'labels', only {sorted(inputs)}")
            check_labels(given, model.config.num_labels or 0)
            for name, value in inputs.items():
                if isinstance(value, Tensor):
                    inputs[name] = value.to(model.device)
            with torch.inference_mode():
                exits = model(**inputs).exit_logits
            logits.append(torch.stack(exits).float().cpu())
            labels.append(given.cpu())
    finally:
        model.train(training)
    if not logits:
        raise ValueError("data must hold at least one batch, got none")
    return ExitTrace(torch.cat(logits, 1), torch.cat(labels), tuple(model.config.exits))
