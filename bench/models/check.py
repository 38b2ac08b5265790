"""One family: is it walked, may rows be dropped, and does it compile?"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

import eefast
from bench.models.tiny import tiny
from eefast.backbones.generic.signature import random_inputs
from eefast.policies import Never


def check(model_type: str) -> dict[str, Any]:
    """What is written about the family: {"model", "layers", "reads", "outcome"}.

    The outcome is "" if all went well: the study walked it and dropped rows, and the
    compiled model exits with BEEM where `simulate` says, with the full model's logits.
    """
    try:
        task = tiny(model_type)
    except Exception as error:
        return {"model": model_type, "outcome": f"no tiny model: {_short(error)}"}
    found: dict[str, Any] = {"model": model_type, "class": type(task).__name__}
    try:
        model, kept = _attached(task)
    except Exception as error:
        return {**found, "outcome": _short(error)}
    anatomy = model.config.anatomy or {}
    found |= {
        "layers": model.layers.depth,
        "reads": anatomy.get("pooling", "adapter"),
        "kept": kept,
    }
    try:
        _compiled_as_simulated(model)
    except Exception as error:
        return {**found, "outcome": f"compiled: {_short(error)}"}
    return {**found, "outcome": ""}


def _attached(task: Any) -> tuple[Any, str]:
    """The model with exits, and the kind of head that the task model's own could be kept as."""
    for head in ("linear", "pooler"):
        try:
            return eefast.attach_exits(task, head=head, init="keep"), head
        except ValueError as error:
            if "init='keep'" not in str(error):
                raise
    return eefast.attach_exits(task, init="fresh"), "no"


def _compiled_as_simulated(model: Any) -> None:
    with torch.no_grad():
        for classifier in model.heads.classifiers:  # confidences that differ between samples
            classifier.weight.mul_(5)
        inputs = random_inputs(model.backbone, 4)
        full = model(**inputs)
    batch = {**inputs, "labels": torch.arange(4) % model.num_classes}
    trace = eefast.record_trace(model, [batch])
    policy = eefast.policies.BEEM.cost(model.num_exits, 0.1)
    answer = eefast.compile(model, policy=Never())(**inputs)
    _must_agree(answer.logits, full.logits, "the last exit")
    early = eefast.compile(model, policy=policy)(**inputs)
    expected = eefast.simulate(policy, trace)
    if early.exit_layer.tolist() != expected.exit_layer.tolist():
        raise ValueError(f"exits {early.exit_layer.tolist()}, not {expected.exit_layer.tolist()}")
    if early.prediction.tolist() != expected.prediction.tolist():
        raise ValueError("predictions differ from simulate")
    for row, layer in enumerate(early.exit_layer.tolist()):
        _must_agree(early.logits[row], full.exit_logits[layer - 1][row], f"exit {layer}")


def _must_agree(ours: torch.Tensor, theirs: torch.Tensor, what: str) -> None:
    difference = float((ours - theirs).abs().max())
    if not difference <= 1e-3 * max(1.0, float(theirs.abs().max())):
        raise ValueError(f"logits of {what} differ by {difference:.2g}")


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    text = text.removeprefix("model: ").split(" An adapter would help")[0]
    return (text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}")[:300]


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[1:]:
        print("RESULT " + json.dumps(check(name)), flush=True)
