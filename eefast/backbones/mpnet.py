"""MPNet: relative positions beside RoBERTa's absolute ones, and no token types."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from eefast.backbones.base import LayerInputs
from eefast.backbones.registry import register_backbone
from eefast.backbones.roberta import RobertaBackbone


@register_backbone("mpnet")
class MPNetBackbone(RobertaBackbone):
    """Around an `MPNetModel`, which numbers its tokens as RoBERTa does."""

    takes = frozenset({"position_ids"})

    def _layer_inputs(self, hidden: Tensor, attention_mask: Tensor | None) -> LayerInputs:
        inputs = super()._layer_inputs(hidden, attention_mask)
        return replace(inputs, position_bias=self._position_bias(hidden))

    def _position_bias(self, hidden: Tensor) -> Tensor:
        """The bias [1, heads, T, T] of all layers and samples: it depends on the length alone.

        The model's own `compute_position_bias` copies it for every sample and, in some versions,
        makes it on the host, which a CUDA graph cannot capture.
        """
        encoder = self.model.encoder
        positions = torch.arange(hidden.shape[1], device=hidden.device)
        buckets = encoder.relative_position_bucket(positions[None, :] - positions[:, None])
        bias: Tensor = encoder.relative_attention_bias(buckets)  # (T, T, heads)
        return bias.permute(2, 0, 1).contiguous()[None]

    def _run(self, module: nn.Module, hidden: Tensor, inputs: LayerInputs) -> Tensor:
        after: Tensor = module(hidden, inputs.mask, inputs.position_bias)[0]
        return after
