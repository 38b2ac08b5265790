"""The models that are measured: shapes of known ones, with random weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import BertConfig, BertModel

from eefast import MultiExitModel, attach_exits

SHAPES: dict[str, dict[str, Any]] = {
    "BERT-base": dict(hidden_size=768, num_hidden_layers=12, intermediate_size=3072),
    "MiniLM": dict(hidden_size=384, num_hidden_layers=6, intermediate_size=1536),
}


def make_model(
    shape: Mapping[str, Any],
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> MultiExitModel:
    """Random weights, a linear exit after every layer, two classes.

    Args:
        shape: arguments of `BertConfig`.
    """
    torch.manual_seed(0)
    config = BertConfig(num_attention_heads=12, **shape)
    model = attach_exits(BertModel(config, add_pooling_layer=False)).eval()
    return model.to(device, dtype)  # type: ignore[arg-type]
