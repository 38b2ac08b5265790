"""What the generic backbone has to know of a model: found once, saved with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer


@dataclass(frozen=True)
class Anatomy:
    """How a model is walked; plain values, so that a config can hold it.

    Attributes:
        calls: the path of the module of each layer, in the order in which the model calls them; a
            module that several layers share is there several times.
        outputs: of each layer, how many values it returns; 0: a tensor, not a tuple.
        widths, costs: as a `Backbone`'s.
        norm: the path of the final norm that an exit's vectors pass, or "".
        norm_after: the norm is for the pooled vector, not for each token.
        pooling: what an exit reads: "first" or "last" (token that is not padding), "mean", or
            "patches" (the mean without the first token).
        padded: tokens that the mask hides change nothing, wherever they stand on the right.
    """

    calls: tuple[str, ...]
    outputs: tuple[int, ...]
    widths: tuple[int, ...]
    costs: tuple[float, ...]
    norm: str = ""
    norm_after: bool = False
    pooling: str = "first"
    padded: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As JSON knows it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Anatomy:
        """Of what `to_dict` gave, before or after JSON."""
        tuples: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list | tuple) else v for k, v in values.items()
        }
        return cls(**tuples)


def candidates(model: PreTrainedModel) -> Iterator[list[str]]:
    """Paths of the modules that may be the layers, likeliest first.

    What the model's class says it records as hidden states; lists of layers that can be
    checkpointed; other lists of modules of one class, longest first. Of an encoder with a decoder,
    the decoder's.
    """
    named = dict(model.named_modules())
    prefix = "decoder." if _has_decoder(model) else ""
    seen: set[tuple[str, ...]] = set()
    for paths in (_recorded(named), *_lists(named)):
        found = tuple(_outermost([p for p in paths if p.startswith(prefix)]))
        if found and found not in seen:
            seen.add(found)
            yield list(found)


def _has_decoder(model: PreTrainedModel) -> bool:
    return bool(getattr(model.config, "is_encoder_decoder", False)) and "decoder" in model._modules


def _recorded(named: dict[str, nn.Module]) -> list[str]:
    paths = []
    for root, owner in named.items():
        specs = (getattr(owner, "_can_record_outputs", None) or {}).get("hidden_states")
        for spec in specs if isinstance(specs, list) else [specs]:
            target = getattr(spec, "target_class", spec)
            if not isinstance(target, type):
                continue
            inside = (p for p in named if p.startswith(f"{root}.") or not root)
            paths += [p for p in inside if p and isinstance(named[p], target)]
    return list(dict.fromkeys(paths))


def _lists(named: dict[str, nn.Module]) -> list[list[str]]:
    checkpointed, alike = [], []
    for path, module in named.items():
        if not isinstance(module, nn.ModuleList | nn.Sequential) or len(module) == 0:
            continue
        paths = [f"{path}.{name}" for name in module._modules]
        if all(isinstance(child, GradientCheckpointingLayer) for child in module):
            checkpointed.append(paths)
        elif len({type(child) for child in module}) == 1:
            alike.append(paths)
    return sorted(checkpointed, key=len, reverse=True) + sorted(alike, key=len, reverse=True)


def _outermost(paths: list[str]) -> list[str]:
    return [p for p in paths if not any(p != q and p.startswith(f"{q}.") for q in paths)]
