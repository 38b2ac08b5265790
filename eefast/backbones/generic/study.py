"""`study`: finds out how a model is walked, and tests the walk against the model's own forward."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from eefast.backbones.base import Inputs, gathered
from eefast.backbones.generic.anatomy import Anatomy, candidates
from eefast.backbones.generic.backbone import GenericBackbone, first_of, split
from eefast.backbones.generic.reading import is_causal, readout_of
from eefast.backbones.generic.signature import random_inputs
from eefast.backbones.generic.twin import apart, tree_of, twin


class Seen(NamedTuple):
    """One call of a layer in the model's own forward."""

    path: str
    before: Tensor
    output: Any
    flops: int


def study(model: PreTrainedModel) -> Anatomy:
    """How `model` (a base model) is walked; a few forwards of a small random batch.

    The batch has padding where the model takes a mask. The walk has to give what the model itself
    gives as hidden states; three samples what each gives alone; and dropped rows must not change
    the others. The model's modes and the random generators are as before afterwards.

    Raises:
        ValueError: a model that cannot be walked: what differed, and how to write an adapter.
    """
    kind = model.config.model_type
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ValueError(f"model: the weights of this {kind} model are not loaded (device 'meta')")
    reasons = []
    model = apart(model).eval()
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices):
        try:
            inputs = random_inputs(model, 3)
            model(**inputs)
        except Exception as error:
            raise _cannot(kind, [f"its forward did not take random inputs: {error}"]) from error
        for paths in candidates(model):
            try:
                return _studied(model, paths, inputs)
            except Exception as error:
                reasons.append(f"layers {paths[0]} ... {paths[-1]}: {_short(error)}")
    raise _cannot(kind, reasons or ["no list of layers was found in it"])


def _cannot(kind: str, reasons: list[str]) -> ValueError:
    return ValueError(
        f"model: a {kind} model could not be walked layer by layer. {'; '.join(reasons[:3])}. An "
        "adapter would help: a subclass of eefast.backbones.Backbone with start and layer (and "
        "readout, where exits do not read the first token), decorated with "
        f"@register_backbone('{kind}'); help(eefast.backbones.base) shows one"
    )


def _short(error: Exception) -> str:
    text = str(error).strip().split("\n")[0][:200]
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"


def _studied(model: Any, paths: list[str], inputs: Inputs) -> Anatomy:
    seen, output = _spied(model, paths, inputs)
    _check_chain(seen, len(paths))
    states = [first_of(call.output) for call in seen]
    total = sum(call.flops for call in seen)
    costs = [call.flops * len(seen) / total if total else 1.0 for call in seen]
    anatomy = Anatomy(
        calls=tuple(call.path for call in seen),
        outputs=tuple(
            len(call.output) if isinstance(call.output, tuple | list) else 0 for call in seen
        ),
        widths=tuple(state.shape[1 if state.dim() == 4 else -1] for state in states),
        costs=tuple(round(cost, 4) for cost in costs),
    )
    backbone = GenericBackbone(model, anatomy)
    walked = _walked(backbone, inputs)
    for i, (ours, theirs) in enumerate(zip(walked, states, strict=True)):
        _must_agree(ours, theirs, f"layer {i + 1} gives other hidden states than in the model")
    _check_recorded(model, inputs, walked, output)
    anatomy = readout_of(model, anatomy, states[-1], output, is_causal(backbone, inputs, walked))
    backbone = GenericBackbone(model, anatomy)
    _check_rows(backbone, inputs)
    padded = "attention_mask" in inputs and _padding_changes_nothing(backbone, inputs)
    return dataclasses.replace(anatomy, padded=padded)


def _spied(model: Any, paths: list[str], inputs: Inputs) -> tuple[list[Seen], Any]:
    modules = [model.get_submodule(path) for path in paths]
    seen: list[Seen] = []

    def call(number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        before, _ = split(args, kwargs)
        output, flops = _counted(modules[number], args, kwargs)
        seen.append(Seen(paths[number], before, output, flops))
        return output

    output = twin(model, tree_of(paths), call)(**inputs)
    return seen, output


def _counted(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, int]:
    try:
        with FlopCounterMode(display=False) as counter:
            return module(*args, **kwargs), counter.get_total_flops()
    except AssertionError:  # the counter cannot follow operations with a backward of their own
        return module(*args, **kwargs), 0


def _check_chain(seen: list[Seen], paths: int) -> None:
    if not seen:
        raise ValueError("the model does not call them")
    if len({call.path for call in seen}) < paths:
        raise ValueError(f"the model calls {len(seen)} of {paths}")
    for i, (one, next_) in enumerate(itertools.pairwise(seen)):
        after = first_of(one.output)
        if after is not next_.before and not (
            after.shape == next_.before.shape and torch.equal(after, next_.before)
        ):
            raise ValueError(
                f"between layers {i + 1} and {i + 2} the model changes the hidden states"
            )


def _walked(backbone: GenericBackbone, inputs: Inputs) -> list[Tensor]:
    hidden, context = backbone.start(inputs)
    states = []
    for i in range(1, backbone.depth + 1):
        hidden = backbone.layer(i, hidden, context)
        states.append(hidden)
    return states


def _check_recorded(model: Any, inputs: Inputs, walked: list[Tensor], output: Any) -> None:
    """Against `output_hidden_states`, whose last entry may be the normed one."""
    recorded = model(**inputs, output_hidden_states=True)
    states = getattr(recorded, "decoder_hidden_states", None)
    states = getattr(recorded, "hidden_states", None) if states is None else states
    if states is None or len(states) != len(walked) + 1:
        return  # the family records something else, such as its stages
    for i, (ours, theirs) in enumerate(zip(walked[:-1], states[1:-1], strict=True)):
        if ours.shape == theirs.shape:
            _must_agree(ours, theirs, f"layer {i + 1} gives other hidden states than recorded")


def _check_rows(backbone: GenericBackbone, inputs: Inputs) -> None:
    together = _vectors(backbone, inputs)
    for row in range(3):
        alone = _vectors(backbone, {k: v[row : row + 1] for k, v in inputs.items()})
        for i, (ours, theirs) in enumerate(zip(together, alone, strict=True)):
            _must_agree(ours[row], theirs[0], f"layer {i + 1}: a sample alone differs from three")
    kept = torch.tensor([2, 0], device=backbone.device)
    dropped = _vectors(backbone, inputs, kept)
    for i, (ours, theirs) in enumerate(zip(dropped, together, strict=True)):
        _must_agree(ours, theirs[kept], f"layer {i + 1}: samples differ after one was dropped")


def _vectors(backbone: GenericBackbone, inputs: Inputs, kept: Tensor | None = None) -> list[Tensor]:
    """What the exits read; with `kept`, the other rows are dropped before layer 1."""
    hidden, context = backbone.start(inputs)
    samples = inputs[backbone.model.main_input_name].shape[0]
    if hidden.shape[0] != samples:
        raise ValueError(f"hidden states of shape {list(hidden.shape)} for {samples} samples")
    if kept is not None:
        hidden, context = hidden.index_select(0, kept), context.select(kept)
    vectors = []
    for i in range(1, backbone.depth + 1):
        hidden = backbone.layer(i, hidden, context)
        vectors.append(gathered(*backbone.readout(i, hidden, context)))
    return vectors


def _padding_changes_nothing(backbone: GenericBackbone, inputs: Inputs) -> bool:
    try:
        long = _vectors(backbone, {k: v[2:] for k, v in inputs.items()})
        length = int(inputs["attention_mask"][2].sum())
        short = _vectors(backbone, {k: v[2:, :length] for k, v in inputs.items()})
        return all(_agree(a, b) for a, b in zip(long, short, strict=True))
    except Exception:  # a family that takes certain lengths only
        return False


def _agree(ours: Tensor, theirs: Tensor) -> bool:
    """Within the square root of the precision, of the largest value: orders are not the same."""
    if ours.shape != theirs.shape:
        return False
    tolerance = torch.finfo(theirs.dtype).eps ** 0.5 * float(theirs.abs().max())
    return bool((ours - theirs).abs().max() <= tolerance)


def _must_agree(ours: Tensor, theirs: Tensor, what: str) -> None:
    if not _agree(ours, theirs):
        if ours.shape != theirs.shape:
            raise ValueError(f"{what}: shape {list(ours.shape)}, not {list(theirs.shape)}")
        raise ValueError(f"{what}: by {float((ours - theirs).abs().max()):.2g}")
