"""`StaticInputs`: the buffers from which a captured graph reads what it is called with."""

from __future__ import annotations

import torch
from torch import Tensor

from eefast.backbones import ModelInputs


class StaticInputs:
    """Buffers for the inputs of one shape, into which each call writes its own.

    The padding behind a call's tokens is hidden by the mask, which is therefore always there. It is
    also cleared, since a hidden number still counts if it is infinite or NaN; only as far as the
    call before has written.

    Args:
        like: inputs of this kind: buffers are made for what they hold.
        length: to which sequences are padded.
        token_types: whether the family knows token types; without any they are 0.
        padding: the token that pads.

    Attributes:
        tensors: the buffers.
    """

    def __init__(
        self,
        like: ModelInputs,
        length: int,
        *,
        token_types: bool,
        padding: int,
        device: torch.device,
    ) -> None:
        given = like.input_ids if like.inputs_embeds is None else like.inputs_embeds
        assert given is not None  # Backbone.check has seen to it

        def full(value: int, dtype: torch.dtype, *width: int) -> Tensor:
            return torch.full((len(given), length, *width), value, dtype=dtype, device=device)

        has_embeds = like.inputs_embeds is not None
        self.tensors = ModelInputs(
            input_ids=None if has_embeds else full(padding, torch.int64),
            attention_mask=full(False, torch.bool),  # whatever is not 0 becomes True
            token_type_ids=full(0, torch.int64) if token_types else None,
            position_ids=None if like.position_ids is None else full(0, torch.int64),
            inputs_embeds=full(0, given.dtype, given.shape[2]) if has_embeds else None,
        )
        self._padding = (padding, False, 0, 0, 0.0)  # of each buffer
        self._length = length
        self._written = [0] * len(self.tensors)  # tokens that are not padding, in each buffer

    def write(self, inputs: ModelInputs, length: int) -> int:
        """Enqueue the copies of inputs of `length` tokens; gives the number of launches.

        Nothing is left of the call before.
        """
        launches = 0
        for number, buffer in enumerate(self.tensors):
            if buffer is None:
                continue
            given, padding = inputs[number], self._padding[number]
            before, now = self._written[number], length
            launches += 1
            self._written[number] = self._length  # anything, should this be interrupted
            if given is not None:
                buffer[:, :length].copy_(given)
            elif buffer is self.tensors.attention_mask:
                buffer[:, :length].fill_(True)
            else:
                now, launches = 0, launches - 1
            if now < before:
                buffer[:, now:before].fill_(padding)
                launches += 1
            self._written[number] = now
        return launches
