"""The attention mask in the form that the layers add to their scores."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_HIDDEN = {
    # torch turns a boolean mask into this in every layer; made here, it is made once, and the same
    # kernels run on the same numbers.
    "sdpa": lambda dtype: -math.inf,
    # As in transformers: a finite number, so that the softmax of a row without tokens is not NaN.
    "eager": lambda dtype: torch.finfo(dtype).min,
}


def attention_bias(
    attention_mask: Tensor | None,  # (B, T), any dtype; 0 hides a token
    hidden: Tensor,  # any, of the dtype and on the device of the hidden states
    implementation: str,  # the model's config._attn_implementation
) -> Tensor | None:
    """What is added to the attention scores: [B, 1, 1, T] in the dtype of `hidden`, or None.

    None without an `attention_mask`. The host reads nothing.

    A sample of padding only attends to nothing: zeros with sdpa, the mean of all tokens with eager,
    as in transformers.

    Raises:
        ValueError: an implementation that takes its mask in another form.
    """
    if implementation not in _HIDDEN:
        raise ValueError(
            f"attn_implementation: got '{implementation}'; wanted one of {', '.join(_HIDDEN)} "
            "(model.set_attn_implementation changes it)"
        )
    if attention_mask is None:
        return None
    shown = attention_mask.to(device=hidden.device, dtype=torch.bool)
    bias = hidden.new_zeros(shown.shape)
    return bias.masked_fill_(~shown, _HIDDEN[implementation](hidden.dtype))[:, None, None]


def window_bias(
    bias: Tensor | None,  # of `attention_bias`
    hidden: Tensor,  # any, of the dtype and on the device of the hidden states
    tokens: int,  # T
    window: int,  # a token sees those at most so far from it, on both sides
    implementation: str,
) -> Tensor:
    """`bias` for layers that see a window: [B, 1, T, T], or [1, 1, T, T] where `bias` is None."""
    places = torch.arange(tokens, device=hidden.device)
    outside = (places[:, None] - places).abs() > window
    start = hidden.new_zeros((1, 1, tokens, tokens)) if bias is None else bias
    return start.masked_fill(outside, _HIDDEN[implementation](hidden.dtype))


def mean_of_shown(hidden: Tensor, shown: Tensor | None) -> Tensor:
    """The mean [B, D] of `hidden` [B, T, D] over the tokens that are `shown` [B, T]; None: all.

    Zeros for a sample with no such token, as sentence-transformers has it: an error would have to
    wait for the device, and 0 / 0 is NaN.
    """
    if shown is None:
        return hidden.mean(1)
    total = hidden.masked_fill((shown == 0)[..., None], 0).sum(1)
    return total / shown.sum(1, keepdim=True).clamp(min=1)


def hides_nothing(attention_mask: Tensor) -> bool:
    """Whether a mask has no zero, as far as that can be told without waiting: on the CPU."""
    return attention_mask.is_cpu and bool(attention_mask.all())
