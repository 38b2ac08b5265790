"""MPNet: relative positions beside RoBERTa's absolute ones, and no token types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from eefast.backbones.base import Inputs
from eefast.backbones.families.encoder import EncoderContext
from eefast.backbones.families.roberta import RobertaBackbone
from eefast.backbones.registry import register_backbone


@dataclass(frozen=True, slots=True)
class MPNetContext(EncoderContext):
    """The same for all layers."""

    position_bias: Tensor | None = None  # (1, heads, T, T), shared by all samples


@register_backbone("mpnet")
class MPNetBackbone(RobertaBackbone):
    """Around an `MPNetModel`, which numbers its tokens as RoBERTa does."""

    takes: Mapping[str, str] = {
        "input_ids": "BT",
        "attention_mask": "BT",
        "position_ids": "1T",
        "inputs_embeds": "BTE",
    }

    def context(
        self, hidden: Tensor, tokens: int, mask: Tensor | None, inputs: Inputs
    ) -> MPNetContext:
        common = super().context(hidden, tokens, mask, inputs)
        return MPNetContext(common.mask, common.shown, self._position_bias(tokens, hidden.device))

    def _position_bias(self, tokens: int, device: torch.device) -> Tensor:
        """The bias [1, heads, T, T] of all layers and samples: it depends on the length alone.

        The model's own `compute_position_bias` copies it for every sample and, in some versions,
        makes it on the host, which a CUDA graph cannot capture.
        """
        encoder = self.model.encoder
        positions = torch.arange(tokens, device=device)
        buckets = encoder.relative_position_bucket(positions[None, :] - positions[:, None])
        bias: Tensor = encoder.relative_attention_bias(buckets)  # (T, T, heads)
        return bias.permute(2, 0, 1).contiguous()[None]

    def _run(self, module: nn.Module, hidden: Tensor, context: Any) -> Tensor:
        after: Tensor = module(hidden, context.mask, context.position_bias)[0]
        return after
