"""`load_checkpoint`: from the files of a paper's released code to a `MultiExitModel`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, PretrainedConfig

from eefast.checkpoints import classifiers, elasticbert, highway
from eefast.checkpoints.layout import Heads, Layout
from eefast.checkpoints.read import read_config, read_weights
from eefast.config import MultiExitConfig
from eefast.multi_exit import MultiExitModel

Format = Literal["auto", "pabee", "beem1", "pcee", "elasticbert", "berxit", "deebert"]

_LAYOUTS = (classifiers.LAYOUT, highway.LAYOUT, elasticbert.LAYOUT)
_FAMILIES = {"bert": "bert", "albert": "albert", "roberta": "roberta", "elasticbert": "bert"}
_BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")  # constants of the backbone


def load_checkpoint(path: str | Path, format: Format = "auto") -> MultiExitModel:
    """Read a checkpoint of the papers' released code: BERT, ALBERT, RoBERTa or ElasticBERT.

    Each exit computes what the released code computes at that layer; the model is in evaluation
    mode, float32, on the CPU. Of BERxiT the learned uncertainty becomes the heads' learned score (a
    certainty, see `eefast.checkpoints.highway`). Tokenizer and exit rule are not read, and training
    it further takes the config's objective.

    Args:
        path: a folder with config.json, and model.safetensors or pytorch_model.bin. The latter is
            read with `weights_only`: no code of it runs.
        format: the codebase that wrote it. "pabee", "beem1" and "pcee" name their weights alike,
            and so do "deebert" and "berxit". "auto" goes by the names, and warns of what it chose.

    Raises:
        FileNotFoundError: there is no such folder, no config or no weights in it.
        ValueError: an unknown format; "auto" finds none or several; a backbone of another family;
            keys that are missing, not expected or of another shape, all of them listed; a damaged
            file.
    """
    if format not in get_args(Format):
        raise ValueError(f"format must be one of {get_args(Format)}, got {format!r}")
    folder = Path(path)
    described, weights = read_config(folder), read_weights(folder)
    base = _base(folder, described, weights)
    if format == "auto":
        layout = _found(folder, base, weights)
        warnings.warn(
            f"{folder}: read as format={layout.formats[0]!r}"
            + "".join(f" (or {other!r}, which is the same)" for other in layout.formats[1:])
            + ", as its weights are named",
            stacklevel=2,
        )
    else:
        layout = next(layout for layout in _LAYOUTS if format in layout.formats)
        if base not in layout.bases:
            raise ValueError(f"{folder}: format {format!r} has no backbone {base!r}")
    if layout.twins is not None:
        _drop_twins(folder, weights, layout.twins, base)
    try:
        backbone = _backbone_config(described, base)
        heads = layout.heads(base, backbone.num_hidden_layers, weights.keys())
        model = _empty(described, backbone, heads, weights)
    except Exception as error:  # transformers and torch raise what they stumble on
        raise ValueError(
            f"{folder / 'config.json'} describes no model of type {_FAMILIES[base]!r}: {error!r}"
        ) from None
    names = {name: _source(name, base, heads) for name in model.state_dict()}
    shapes = {names[name]: tensor.shape for name, tensor in model.state_dict().items()}
    unused = {f"{base}.{name}" for name in _BUFFERS}
    unused |= {f"{name}.{part}" for name in heads.unused for part in ("weight", "bias")}
    _check(folder, layout, weights, shapes, unused)
    state = {name: weights[key] for name, key in names.items()}
    if heads.uncertainty is not None:
        for name in ("heads.scorer.weight", "heads.scorer.bias"):
            state[name] = -state[name]
    model.load_state_dict(state)
    model.train(False)
    return model


def _base(folder: Path, described: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str:
    """What the backbone is called in the file."""
    there = [base for base in _FAMILIES if f"{base}.embeddings.word_embeddings.weight" in weights]
    if len(there) != 1:
        raise ValueError(
            f"{folder}: its weights must have one backbone, named one of {list(_FAMILIES)}; got "
            f"{there or sorted({key.partition('.')[0] for key in weights})}"
        )
    kind = described.get("model_type", there[0])  # older files do not say
    if kind != there[0]:
        raise ValueError(f"{folder}: config.json has model_type {kind!r}, the weights {there[0]!r}")
    return there[0]


def _found(folder: Path, base: str, weights: Mapping[str, Tensor]) -> Layout:
    """The one layout that the names of the weights are of."""
    fitting = [
        layout
        for layout in _LAYOUTS
        if base in layout.bases and any(layout.mark.search(key) for key in weights)
    ]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = [name for layout in fitting for name in layout.formats]
        raise ValueError(
            f"{folder}: its weights are named as several formats do; give format= one of {names}"
        )
    others = sorted(key for key in weights if not key.startswith(f"{base}."))
    raise ValueError(
        f"{folder}: no format names its weights so; there are {list(get_args(Format)[1:])}, and "
        f"beside {base!r} it has {others}"
    )


def _drop_twins(folder: Path, weights: dict[str, Tensor], twin: str, base: str) -> None:
    for key in [key for key in weights if key.startswith(f"{twin}.")]:
        first = base + key.removeprefix(twin)
        if first in weights:
            if not torch.equal(weights[first], weights[key]):
                raise ValueError(f"{folder}: {first} and {key} must be the same; they differ")
            del weights[key]


def _backbone_config(described: Mapping[str, Any], base: str) -> PretrainedConfig:
    """Of what config.json says, what describes the backbone: old files say much else."""
    kind: Any = CONFIG_MAPPING[_FAMILIES[base]]
    fields = kind().to_dict().keys() - PretrainedConfig().to_dict().keys() - {"model_type"}
    config: PretrainedConfig = kind(**{k: v for k, v in described.items() if k in fields})
    return config


def _empty(
    described: Mapping[str, Any],
    backbone: PretrainedConfig,
    heads: Heads,
    weights: Mapping[str, Tensor],
) -> MultiExitModel:
    """The model that the weights go into; the number of classes is that of its last classifier."""
    names = described.get("id2label")
    last = weights.get(f"{heads.classifiers[-1]}.weight")
    if last is not None and (not isinstance(names, dict) or len(names) != len(last)):
        classes: dict[str, Any] = {"num_labels": len(last)}
    else:
        classes = {"id2label": names, "label2id": described.get("label2id")} if names else {}
    config = MultiExitConfig(
        backbone_config=backbone,
        head=heads.kind,
        share_pooler=len(heads.poolers) == 1 < len(heads.classifiers),
        head_dropout=getattr(backbone, "classifier_dropout_prob", backbone.hidden_dropout_prob),
        scorer_row=heads.uncertainty is not None,
        pad_token_id=backbone.pad_token_id,
        **classes,
    )
    return MultiExitModel(config)


def _check(
    folder: Path,
    layout: Layout,
    weights: Mapping[str, Tensor],
    shapes: Mapping[str, torch.Size],
    unused: set[str],
) -> None:
    """Raise ValueError unless the weights are those of `shapes`, and perhaps some `unused` ones."""
    wrong = {
        "lacks": shapes.keys() - weights.keys(),
        "has besides": weights.keys() - shapes.keys() - unused,
        "has of another shape": {
            f"{key} {list(weights[key].shape)} instead of {list(shape)}"
            for key, shape in shapes.items()
            if key in weights and weights[key].shape != shape
        },
    }
    if any(wrong.values()):
        listed = "; ".join(f"it {what} {', '.join(sorted(k))}" for what, k in wrong.items() if k)
        formats = " or ".join(map(repr, layout.formats))
        raise ValueError(f"{folder} does not fit format {formats} and its config.json: {listed}")


def _source(name: str, base: str, heads: Heads) -> str:
    """What the file calls the tensor that our model calls `name`."""
    first, _, rest = name.partition(".")
    if first != "heads":
        return f"{base}.{rest}"
    part, *number, kind = rest.split(".")
    if part == "scorer":
        return f"{heads.uncertainty}.{kind}"
    return f"{getattr(heads, part)[int(number[0])]}.{kind}"
