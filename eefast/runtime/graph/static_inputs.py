"""`StaticInputs`: the buffers from which a captured graph reads its inputs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from eefast.backbones import Backbone, Inputs


class Form(NamedTuple):
    """The buffer of one input."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]


def forms(backbone: Backbone, inputs: Inputs, samples: int, length: int | None) -> tuple[Form, ...]:
    """The buffers that inputs need, which also say which calls may share them.

    Args:
        backbone: whose inputs they are.
        inputs: that it can take.
        samples: B.
        length: to which those with a token axis are padded; None: none is.
    """
    needed = []
    for name in backbone.takes:
        given, shape = inputs.get(name), None
        if length is not None and name in backbone.padding:
            if given is not None:
                shape = (given.shape[0], length, *given.shape[2:])
            elif name in backbone.absent:
                shape = (samples, length)
        elif given is not None:
            shape = given.shape
        if shape is not None:
            dtype = torch.int64 if given is None else given.dtype  # as tokenizers give them
            needed.append(Form(name, dtype, tuple(shape)))
    return tuple(needed)


class StaticInputs:
    """Buffers for the inputs of one shape, into which each call writes its own.

    The mask hides the padding after a call's tokens, so a mask is always given. The padding is also
    cleared, as far as the call before wrote, because a hidden number that is infinite or NaN still
    has an effect.

    Args:
        backbone: whose inputs they are.
        forms: of the buffers.
        device: of the buffers.

    Attributes:
        tensors: the buffers by name.
    """

    def __init__(self, backbone: Backbone, forms: tuple[Form, ...], device: torch.device) -> None:
        self._padding = backbone.padding
        self._absent = backbone.absent
        self.tensors: dict[str, Tensor] = {
            form.name: torch.full(
                form.shape, backbone.padding.get(form.name, 0), dtype=form.dtype, device=device
            )
            for form in forms
        }
        self._written = dict.fromkeys(self.tensors, 0)  # tokens that are not padding, in each

    def write(self, inputs: Inputs, length: int | None) -> int:
        """Enqueue the copies of inputs of `length` tokens; returns the number of launches.

        Nothing of the call before remains.
        """
        launches = 0
        for name, buffer in self.tensors.items():
            given = inputs.get(name)
            if length is None or name not in self._padding:
                buffer.copy_(inputs[name])
                launches += 1
                continue
            before, self._written[name] = self._written[name], buffer.shape[1]  # if interrupted
            now, padding = length, self._padding[name]
            if given is not None:
                buffer[:, :length].copy_(given)
                launches += 1
            elif self._absent[name] == padding:
                now = 0
            else:
                buffer[:, :length].fill_(self._absent[name])
                launches += 1
            if now < before:
                buffer[:, now:before].fill_(padding)
                launches += 1
            self._written[name] = now
        return launches
