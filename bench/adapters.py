"""What `start` costs with an adapter by hand, and on the generic path.

    python -m bench.adapters

Writes docs/adapters.md: random weights of known shapes, batch 1, fp32, one thread. The variants
take turns, and medians are given. An adapter is there only if it is faster.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    BertConfig,
    BertModel,
    DebertaV2Config,
    DebertaV2Model,
    ModernBertConfig,
    ModernBertModel,
    PreTrainedModel,
    ViTConfig,
    ViTModel,
)

from eefast.backbones import GenericBackbone, Inputs, backbone_for, study
from eefast.measure import markdown_table, medians, processor, write_whole

TOKENS = 16
_DEBERTA_V3: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "type_vocab_size": 0,
}
MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "BERT-base": lambda: BertModel(BertConfig()),
    "ModernBERT-base": lambda: ModernBertModel(ModernBertConfig()),
    "DeBERTa-v3-base": lambda: DebertaV2Model(DebertaV2Config(**_DEBERTA_V3)),
    "ViT-base": lambda: ViTModel(ViTConfig()),
}
PAGE = Path(__file__).parent.parent / "docs" / "adapters.md"


def measure(model: PreTrainedModel, rounds: int) -> dict[str, float]:
    """Medians in us: `start` of the adapter and of the generic path, and the embeddings alone."""
    inputs = _inputs(model)
    adapter, generic = backbone_for(model), GenericBackbone(model, study(model))
    embeddings: Any = model.embeddings
    calls = {
        "adapter": lambda: adapter.start(inputs),
        "generic": lambda: generic.start(inputs),
        "embeddings": lambda: embeddings(*inputs.values()),
    }
    with torch.inference_mode():
        return medians(calls, _us, seconds=600, rounds=(rounds, rounds))


def _inputs(model: PreTrainedModel) -> Inputs:
    config: Any = model.config
    if model.main_input_name == "pixel_values":
        size = config.image_size
        return {"pixel_values": torch.randn(1, config.num_channels, size, size)}
    return {"input_ids": torch.randint(config.vocab_size, (1, TOKENS))}


def _us(call: Any) -> float:
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) / 1e3


def page(found: Mapping[str, Mapping[str, float]]) -> str:
    """docs/adapters.md."""
    rows = [
        [
            name,
            *(f"{us[variant]:.0f}" for variant in ("embeddings", "adapter", "generic")),
            f"{us['generic'] / us['adapter']:.2f}",
        ]
        for name, us in found.items()
    ]
    columns = ("model", "embeddings alone", "adapter", "generic path", "generic / adapter")
    return (
        "# Adapters by hand\n\nWritten by `python -m bench.adapters`: what `Backbone.start` costs, "
        "the embeddings and what the layers need beside them, in us (medians of alternating "
        f"rounds). Random weights, batch 1, {TOKENS} tokens or one image, fp32, one thread, "
        f"{processor()}, torch {torch.__version__}, transformers {transformers.__version__}.\n\n"
        f"{markdown_table(columns, rows)}\n"
    )


def main(rounds: int = 400) -> None:
    """Measure, print and write the page."""
    torch.set_num_threads(1)
    found = {}
    for name, make in MODELS.items():
        torch.manual_seed(0)
        model: Any = make()
        found[name] = measure(model.eval(), rounds)
    print(page(found))
    write_whole(PAGE, page(found))


if __name__ == "__main__":
    main()
