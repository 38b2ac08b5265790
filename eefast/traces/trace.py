"""`ExitTrace`: every exit's logits on a data set, recorded once and evaluated many times."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from eefast.labels import check_labels

_FORMAT = "eefast-trace-1"


@dataclass(frozen=True, eq=False)
class ExitTrace:
    """Logits of every exit for every sample of a data set, with the labels.

    Args:
        logits: [L, N, C] float32.
        labels: [N] int64, in [0, C).
        exit_layers: the 1-based layer after which each exit stands, ascending; None: after
            every layer.
        costs: relative cost of each layer up to the last exit's, greater than 0; (): all alike.
        scores: learned score of each exit, [L, N] float32; None: not kept.
        hidden: what each exit's head reads, L times [N, D]; D may differ; (): not kept.

    Raises:
        ValueError: shapes that do not belong together, or a label outside [0, C).
    """

    logits: Tensor
    labels: Tensor
    exit_layers: tuple[int, ...] = ()
    costs: tuple[float, ...] = ()
    scores: Tensor | None = None
    hidden: tuple[Tensor, ...] = ()

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
        costs = tuple(map(float, self.costs)) or (1.0,) * layers[-1]
        if len(costs) != layers[-1] or not all(0 < cost < math.inf for cost in costs):
            raise ValueError(
                f"costs must be {layers[-1]} numbers greater than 0, one per layer, got {costs}"
            )
        if self.scores is not None and list(self.scores.shape) != [exits, samples]:
            raise ValueError(f"scores must be [{exits}, {samples}], got {list(self.scores.shape)}")
        hidden = tuple(self.hidden)
        shapes = [list(vectors.shape) for vectors in hidden]
        if hidden and [shape[:-1] for shape in shapes] != [[samples]] * exits:
            raise ValueError(f"hidden must be {exits} times [{samples}, D], got {shapes}")
        object.__setattr__(self, "exit_layers", layers)
        object.__setattr__(self, "costs", costs)
        object.__setattr__(self, "hidden", hidden)

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
        tensors = {"logits": self.logits, "labels": self.labels}
        if self.scores is not None:
            tensors["scores"] = self.scores
        tensors.update((f"hidden.{i}", vectors) for i, vectors in enumerate(self.hidden, 1))
        metadata = {
            "format": _FORMAT,
            "exit_layers": json.dumps(self.exit_layers),
            "costs": json.dumps(self.costs),
        }
        # Written under another name first, so that an interruption cannot damage the file.
        unfinished = Path(f"{path}.part")
        save_file({name: t.contiguous() for name, t in tensors.items()}, unfinished, metadata)
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
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path} is not a safetensors file, or is damaged: {error}") from None
        missing = sorted({"logits", "labels"} - tensors.keys())
        if missing:
            raise ValueError(f"{path} holds no {' and no '.join(missing)}, only {sorted(tensors)}")
        exits = len(tensors["logits"])
        hidden = [tensors.get(f"hidden.{i}") for i in range(1, exits + 1)]
        return cls(
            tensors["logits"],
            tensors["labels"],
            tuple(json.loads(metadata["exit_layers"])),
            tuple(json.loads(metadata.get("costs", "[]"))),  # traces of version 0.1 have none
            tensors.get("scores"),
            tuple(vectors for vectors in hidden if vectors is not None),
        )
