"""`cached_trace`: a trace kept in a file, and bound to the model and the data that it is of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from eefast.traces.record import check_recordable, keepable, record_trace
from eefast.traces.trace import ExitTrace

_STRUCTURE = ("exits", "head", "share_pooler", "readout", "scorer_row", "anatomy")
"""Of the model's config. (`share_head` and `cascade` show in the names of the weights.)"""
_NO_MATTER = {"transformers_version", "_name_or_path", "architectures", "dtype"}
"""Of a backbone's config: saving and loading may change it, and no logit depends on it."""


def cached_trace(
    path: str | Path,
    model: PreTrainedModel,
    data: Iterable[Mapping[str, Any]],
    *,
    progress: bool = False,
) -> ExitTrace:
    """The trace of a model on labelled data: read from `path` if it is of these, else recorded.

    A fingerprint in the file says what it was recorded from: the model's weights, dtypes and
    structure, and every batch. With another one, or none, the trace is recorded and saved anew.
    Learned scores and similarities are kept where the model has them.

    Args:
        path: of the file; its folder must exist.
        model: a `MultiExitModel`, see `record_trace`.
        data: batches with "labels". Shuffled ones are another data set each time.
        progress: show a progress bar.

    Raises:
        ValueError: `path` holds something other than a trace, or as `record_trace` does.
        TypeError: as `record_trace` does.
        OSError: the trace cannot be saved.
    """
    check_recordable(model, data)
    data = list(data)  # what is recorded is what the fingerprint is of, in the same order
    fingerprint = _fingerprint(model, data)
    if Path(path).exists():
        kept = ExitTrace.load(path)
        if kept.fingerprint == fingerprint:
            return kept
    trace = record_trace(model, data, keep=keepable(model), progress=progress)
    trace = replace(trace, fingerprint=fingerprint)
    trace.save(path)
    return trace


def _fingerprint(model: PreTrainedModel, data: Iterable[Mapping[str, Any]]) -> str:
    """SHA-256 of all that a trace depends on, in hexadecimal."""
    digest = hashlib.sha256()

    def add(name: str, value: Any) -> None:
        if not isinstance(value, Tensor):
            digest.update(f"{name} {json.dumps(value, sort_keys=True, default=str)}\n".encode())
            return
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)

    backbone = model.config.backbone_config.to_dict()
    add("backbone", {k: v for k, v in backbone.items() if k not in _NO_MATTER})
    for name in _STRUCTURE:
        add(name, getattr(model.config, name))
    for name, tensor in sorted(model.state_dict().items()):
        add(name, tensor)
    for batch in data:
        add("batch", len(batch))
        for name, value in sorted(batch.items()):
            add(name, value)
    return digest.hexdigest()
