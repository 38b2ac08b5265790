"""`attach_exits`: from a transformers model to a `MultiExitModel`."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from torch import nn
from transformers import PreTrainedModel

from eefast.backbones import base_model_of, has_adapter, study
from eefast.config import MultiExitConfig, check_classes
from eefast.heads import HeadKind
from eefast.multi_exit import MultiExitModel
from eefast.trained_heads import check_model, trained_head
from eefast.training import needs_cascade

_OPTIONS = {
    "cascade",
    "head_dropout",
    "id2label",
    "label2id",
    "num_labels",
    "objective",
    "objective_options",
    "scorer_row",
    "share_head",
}


def attach_exits(
    model: PreTrainedModel,
    exits: Literal["all"] | Sequence[int] = "all",
    head: HeadKind = "linear",
    share_pooler: bool = False,
    readout: Literal["first", "last", "mean"] | None = None,
    init: Literal["keep", "copy", "fresh"] | None = None,
    **options: Any,
) -> MultiExitModel:
    """Give a transformers model an exit after each of its layers, or after some of them.

    The result shares the backbone's weights with `model` (training it trains both). Class names
    and their number come from `model.config`. A family without an adapter is studied first: a few
    forwards of a small random batch show how its layers are walked (`eefast.backbones.study`).

    Args:
        model: a base model (`AutoModel`) or a task model (its backbone is taken) of a family in
            `eefast.backbones`.
        exits: "all", or 1-based layers, ascending, ending with the last layer.
        head: "linear" (D -> C), or "pooler" (dense and tanh, then D -> C).
        share_pooler: one pooler for all exits.
        readout: what an exit reads of a text's tokens: "first", "last" (that is not padding) or
            "mean"; None: what the family's own classifier reads. Models that were pretrained with a
            mean over the tokens, as sentence transformers are, have little in their first token
            before the last layers. The mean of a text whose mask hides every token is 0, as theirs.
        init: "keep": the last exit gets a copy of the head that `model` was trained with, and
            answers as `model` does; the others are new. "copy": all exits start from that copy.
            "fresh": all are new. None: "keep", or, if no head of that kind is found in a task
            model, "fresh" with a warning.
        **options: further fields of the config: num_labels, or id2label or label2id, which is its
            inverse (by default the model's); head_dropout, scorer_row, share_head, objective,
            objective_options; cascade (by default if the objective trains one, as "ztw" does).

    Raises:
        TypeError: an unknown option, or not a transformers model.
        ValueError: a model that cannot be walked, a task without exits, exits that are not layers
            of the model, no trained head to keep or copy, class names with gaps or that contradict
            each other, or an option out of range.
    """
    if init not in (None, "keep", "copy", "fresh"):
        raise ValueError(f"init must be 'keep', 'copy' or 'fresh', got {init!r}")
    backbone = base_model_of(model)
    unknown = sorted(options.keys() - _OPTIONS)
    if unknown:
        raise TypeError(f"attach_exits got unknown options {unknown}; there are {sorted(_OPTIONS)}")
    check_model(model)
    _name_classes(options)
    if "num_labels" not in options:
        options.setdefault("id2label", model.config.id2label)
        options.setdefault("label2id", model.config.label2id)
    layers = None if isinstance(exits, str) else exits
    if layers is None and exits != "all":
        raise ValueError(f"exits must be 'all' or a list of layers, got {exits!r}")
    anatomy = None if has_adapter(backbone) else study(backbone)
    walked = anatomy
    found, anatomy = trained_head(model, backbone, walked, head, readout)
    config = MultiExitConfig(
        backbone_config=copy.deepcopy(backbone.config),
        exits=layers,
        head=head,
        share_pooler=share_pooler,
        readout=readout,
        pad_token_id=getattr(backbone.config, "pad_token_id", None),
        anatomy=None if anatomy is None else anatomy.to_dict(),
        **{"cascade": needs_cascade(options.get("objective", "")), **options},
    )
    fits = found is not None and config.num_labels == model.config.num_labels
    if not fits and init != "fresh":
        what = (
            f"model: {type(model).__name__} has no {head!r} head for {config.num_labels} classes "
            "with which the last exit would answer as it does"
        )
        for other in get_args(HeadKind):
            if other != head and trained_head(model, backbone, walked, other, readout)[0]:
                what += f" (it was trained with a {other!r} head: head={other!r} keeps that)"
        if init is not None:
            raise ValueError(f"{what}; init={init!r} needs one (another `head`, or init='fresh')")
        if model is not backbone and config.num_labels == model.config.num_labels:
            warnings.warn(f"{what}: all exits start anew, untrained", stacklevel=2)
    attached = MultiExitModel(config, backbone)
    attached.heads.to(backbone.device, backbone.dtype)
    if isinstance(attached.objective, nn.Module):
        attached.objective.to(backbone.device)
    attached.train(model.training)
    if found is not None and fits and init != "fresh":
        exits = range(1, attached.num_exits + 1) if init == "copy" else [attached.num_exits]
        for exit in exits:
            attached.heads.start_from(exit, found.pooler, found.classifier)
    return attached


def _name_classes(options: dict[str, Any]) -> None:
    """Complete id2label and label2id if one of them was given."""
    names, numbers, count = (options.get(k) for k in ("id2label", "label2id", "num_labels"))
    if names is None and numbers is not None:
        if not isinstance(numbers, Mapping):
            raise ValueError(f"label2id must be a dictionary, got {numbers!r}")
        names = {number: name for name, number in numbers.items()}
    check_classes(names, count)
    if names is None:
        return
    inverse = {name: int(number) for number, name in names.items()}
    if len(inverse) < len(names) or numbers not in (None, inverse):
        raise ValueError(f"id2label and label2id must be inverses, got {names} and {numbers}")
    if count not in (None, len(names)):
        raise ValueError(f"num_labels must be {len(names)}, as many as id2label has; got {count}")
    options.update(id2label=names, label2id=inverse)
