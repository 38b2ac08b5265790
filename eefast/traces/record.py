"""`record_trace`: a multi-exit model at full depth over a data set."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from eefast.labels import check_labels
from eefast.traces.trace import ExitTrace

Kept = Literal["hidden", "scores"]


def record_trace(
    model: PreTrainedModel,
    data: Iterable[Mapping[str, Any]],
    *,
    keep: Collection[Kept] = (),
    progress: bool = False,
) -> ExitTrace:
    """Run a multi-exit model at full depth over labelled data and keep every exit's logits.

    Args:
        model: a `MultiExitModel`; run in evaluation mode, its mode is restored afterwards.
        data: batches as the model takes them, each with "labels", e.g. a `DataLoader`.
        keep: what else to keep, as some policies and calibrations ask for it: "scores", the
            learned score of each exit; "hidden", the vectors that the heads read, in the model's
            dtype (L * D numbers a sample).
        progress: show a progress bar.

    Raises:
        ValueError: no batch, a batch without labels, a label outside [0, C), a regression model,
            whose one output has no class probabilities to judge, or something to keep that is
            unknown or that the model does not have.
        TypeError: not a multi-exit model, or data that is one batch rather than an iterable.
    """
    if isinstance(data, Mapping):
        raise TypeError(f"data must be an iterable of batches, got one batch ({sorted(data)})")
    if not hasattr(model, "heads"):
        raise TypeError(f"model must be a MultiExitModel, got {type(model).__name__}")
    if model.config.num_labels == 1:
        raise ValueError("a trace is of class probabilities, and a regression model has none")
    if isinstance(keep, str) or not set(keep) <= set(get_args(Kept)):
        raise ValueError(f"keep must be some of {get_args(Kept)}, got {keep!r}")
    heads: Any = model.heads
    layers: Any = model.layers
    if "scores" in keep and heads.scorer is None:
        raise ValueError(
            "keep=('scores',) needs a model with learned scores: "
            "eefast.attach_exits(..., scorer_row=True)"
        )
    logits, labels, scores = [], [], []
    hidden: list[list[Tensor]] = []  # a list per batch
    training = model.training
    model.eval()
    try:
        with _vectors_read(heads, hidden if "hidden" in keep else None):
            for number, batch in enumerate(tqdm(data, "recording", disable=not progress)):
                inputs = dict(batch)
                given = inputs.pop("labels", None)
                if given is None:
                    raise ValueError(f"batch {number} has no 'labels', only {sorted(inputs)}")
                check_labels(given, model.config.num_labels or 0)
                for name, value in inputs.items():
                    if isinstance(value, Tensor):
                        inputs[name] = value.to(model.device)
                hidden.append([])
                with torch.inference_mode():
                    output = model(**inputs)
                logits.append(torch.stack(output.exit_logits).float().cpu())
                labels.append(given.cpu())
                if "scores" in keep:
                    scores.append(torch.stack(output.exit_scores).cpu())
    finally:
        model.train(training)
    if not logits:
        raise ValueError("data must hold at least one batch, got none")
    return ExitTrace(
        torch.cat(logits, 1),
        torch.cat(labels),
        tuple(model.config.exits),
        layers.costs,
        scores=torch.cat(scores, 1) if scores else None,
        hidden=tuple(map(torch.cat, zip(*hidden, strict=True))),
    )


@contextmanager
def _vectors_read(heads: torch.nn.Module, batches: list[list[Tensor]] | None) -> Iterator[None]:
    """While it lasts, the vectors that the heads read are copied into the last of `batches`."""
    if batches is None:
        yield
        return

    def copy(_: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
        batches[-1].append(arguments[1].to("cpu", copy=True))

    hook = heads.register_forward_pre_hook(copy)
    try:
        yield
    finally:
        hook.remove()
