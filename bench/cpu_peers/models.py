"""What all engines run: a classifier of BERT's shape, and texts of random ids."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification

from bench.shapes import SHAPES as _SHAPES

SHAPES: dict[str, dict[str, Any]] = {
    "BERT-base": _SHAPES["BERT-base"],
    "MiniLM-L12": _SHAPES["MiniLM"] | {"num_hidden_layers": 12},
}
HEADS = 12
TEXTS = 4
"""Of each length; every engine gets the same ones."""


def make(shape: str, **options: Any) -> BertForSequenceClassification:
    """Random weights, always the same; one head, with BERT's pooler, for two classes."""
    torch.manual_seed(0)
    config = BertConfig(num_attention_heads=HEADS, num_labels=2, **SHAPES[shape], **options)
    return BertForSequenceClassification(config).eval()


def texts(length: int, count: int = TEXTS, seed: int = 0) -> list[dict[str, Tensor]]:
    """Inputs of one text each, [1, length]."""
    drawn = torch.Generator().manual_seed(seed)
    ids = [
        torch.randint(BertConfig().vocab_size, (1, length), generator=drawn) for _ in range(count)
    ]
    return [{"input_ids": one, "attention_mask": torch.ones_like(one)} for one in ids]
