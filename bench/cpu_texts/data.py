"""The trained model and its texts."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AutoTokenizer

from bench.cpu_texts import SEED, TASK
from eefast import MultiExitModel
from eefast.data import class_names, encode
from eefast.demo import TASKS
from eefast.demo.tasks import trained_model
from eefast_cli.demo import demo_folder


class Texts(NamedTuple):
    """Of one split, each text alone, in the order of the split."""

    inputs: list[dict[str, Tensor]]  # input_ids and attention_mask, [1, T]
    labels: Tensor  # (N,)


def model() -> MultiExitModel:
    """The demo's, which must have been trained."""
    return MultiExitModel.from_pretrained(_folder())


def texts(split: str) -> Texts:
    """Of a split of the demo's data set."""
    data = TASKS[TASK].load(SEED)[split]
    tokenizer = AutoTokenizer.from_pretrained(_folder())
    encoded = encode(data, tokenizer, class_names(data), TASKS[TASK].max_length)
    ids: list[Any] = list(encoded["input_ids"])
    rows = [torch.tensor(row)[None] for row in ids]
    return Texts(
        [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in rows],
        torch.tensor(encoded["labels"]),
    )


def _folder() -> Any:
    folder = trained_model(demo_folder(), TASK, SEED)
    if folder is None:
        sys.exit("there is no trained model: run `make demo` first")
    return folder
