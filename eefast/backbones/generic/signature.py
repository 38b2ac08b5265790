"""What a model's own forward takes, and random inputs to try it with."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from eefast.backbones.base import Inputs

_AXES = {
    "input_ids": "BT",
    "attention_mask": "BT",
    "token_type_ids": "1T",
    "position_ids": "1T",
    "inputs_embeds": "BTE",
    "bbox": "BTE",
    "pixel_values": "BCHW",
}
_NOT_INPUTS = ("past_key_values", "cache_params", "mems", "labels", "cache", "encoder_outputs")


def takes_of(model: PreTrainedModel) -> dict[str, str]:
    """The tensors that the model's forward takes, with their axes; "": any shape.

    Told from the names and annotations of its signature.
    """
    takes: dict[str, str] = {}
    main = model.main_input_name
    for name, parameter in inspect.signature(model.forward).parameters.items():
        tensor = "Tensor" in str(parameter.annotation) and "tuple" not in str(parameter.annotation)
        if name != main and (not tensor or name in _NOT_INPUTS or name.endswith("head_mask")):
            continue
        takes[name] = _AXES.get(name, "") if main == "input_ids" or name == "pixel_values" else ""
    return takes


def random_inputs(model: PreTrainedModel, samples: int, padded: bool = True) -> Inputs:
    """A small batch; of text, sample i has 2 i tokens of padding on the right if `padded`.

    Raises:
        ValueError: a model whose main input is none of those that are known here.
    """
    generator = torch.Generator().manual_seed(0)
    main = model.main_input_name
    config: Any = model.config
    if main == "input_ids":
        return _tokens(model, samples, padded, generator)
    if main not in _SHAPES:
        raise ValueError(f"model: its main input is {main!r}; wanted one of {sorted(_SHAPES)}")
    values = torch.randn((samples, *_SHAPES[main](config)), generator=generator)
    return {main: values.to(model.device, model.dtype)}


def _tokens(
    model: PreTrainedModel, samples: int, padded: bool, generator: torch.Generator
) -> dict[str, Tensor]:
    config: Any = model.config.get_text_config()
    longest = getattr(config, "max_position_embeddings", None) or 12
    length = min(12, longest - 4 if longest > 8 else longest)
    pad, eos = getattr(config, "pad_token_id", None), getattr(config, "eos_token_id", None)
    vocabulary = getattr(config, "vocab_size", 1000)  # CANINE hashes code points
    ids = torch.randint(3, vocabulary, (samples, length), generator=generator)
    for special in (pad, eos):
        if isinstance(special, int):
            ids[ids == special] = (special + 1) % vocabulary
    mask = torch.ones_like(ids)
    ends = [length - (min(2 * i, length - 1) if padded else 0) for i in range(samples)]
    for row, end in enumerate(ends):
        mask[row, end:] = 0
        if isinstance(eos, int) and config.is_encoder_decoder:
            ids[row, end - 1] = eos
        ids[row, end:] = pad or 0
    given = {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}
    return {name: given[name] for name in given if name in takes_of(model)}


def _image(config: Any) -> tuple[int, ...]:
    size = getattr(config, "image_size", None)
    if size is None:
        size = getattr(getattr(config, "vision_config", None), "image_size", None) or 64
    if isinstance(size, dict):
        size = (size["height"], size["width"])
    height, width = (size, size) if isinstance(size, int) else size
    return getattr(config, "num_channels", None) or 3, height, width


def _features(config: Any) -> tuple[int, ...]:
    bins = getattr(config, "num_mel_bins", None)
    if bins and hasattr(config, "max_source_positions"):  # Whisper wants its full window
        return bins, 2 * config.max_source_positions
    return 20, bins or config.feature_projection_input_dim


def _values(config: Any) -> tuple[int, ...]:
    if hasattr(config, "frequency_stride"):  # a spectrogram
        return config.max_length, config.num_mel_bins
    return (4000,)


_SHAPES = {
    "pixel_values": _image,
    "input_features": _features,
    "input_values": _values,
}
