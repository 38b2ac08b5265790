"""The ways to run a model that are compared end to end."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from bench.gpu.forced import POLICY, ForcedDepth
from eefast import CompiledModel, MultiExitModel, compile
from eefast.measure.timing import Call
from eefast.policies import Budgeted, Never, Policy


@dataclass
class Setup:
    """What the variants of one row share: the model, and what it is called with."""

    model: MultiExitModel
    inputs: Mapping[str, Tensor]

    @cached_property
    def compiled_layers(self) -> MultiExitModel:
        """A copy whose layers are compiled each by itself, for these shapes alone."""
        model = copy.deepcopy(self.model)
        for layer in model.backbone.encoder.layer:
            layer.compile(dynamic=False)
        return model


@dataclass
class Variant:
    """One way to run it. `ready(depth)` prepares a call, untimed, and gives it."""

    call: Call
    fast: CompiledModel | None = None
    forced: ForcedDepth | None = field(default=None)

    def ready(self, depth: int) -> Call:
        if self.forced is not None:
            self.forced.set(depth)
        return self.call

    def logits(self, depth: int) -> Tensor:
        """[B, C] float32, a copy."""
        out = self.ready(depth)()
        return (out if isinstance(out, Tensor) else out.logits).float().clone()


class FullDepth(nn.Module):
    """The transformers model itself and the last exit's linear head: no exit, no part of eefast."""

    def __init__(self, model: MultiExitModel) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.classifier = model.heads.classifiers[-1]

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.backbone(input_ids=input_ids, attention_mask=attention_mask)[0]
        logits: Tensor = self.classifier(hidden[:, 0])
        return logits


def _early(runtime: str, compiled: bool = False, **options: Any) -> Callable[[Setup], Variant]:
    def make(setup: Setup) -> Variant:
        model = setup.compiled_layers if compiled else setup.model
        fast = compile(model, POLICY, runtime=runtime, options=options)  # type: ignore[arg-type]
        return Variant(lambda: fast(**setup.inputs), fast, ForcedDepth(fast))

    return make


def _fixed(policy: Policy, runtime: str, compiled: bool = False) -> Callable[[Setup], Variant]:
    def make(setup: Setup) -> Variant:
        model = setup.compiled_layers if compiled else setup.model
        fast = compile(model, policy, runtime=runtime)  # type: ignore[arg-type]
        return Variant(lambda: fast(**setup.inputs), fast)

    return make


def _full_depth(mode: str | None) -> Callable[[Setup], Variant]:
    def make(setup: Setup) -> Variant:
        module: Any = FullDepth(setup.model).eval()
        if mode is not None:
            module = torch.compile(module, mode=mode, dynamic=False)

        def call() -> Tensor:
            with torch.inference_mode():
                logits: Tensor = module(**setup.inputs)
                return logits

        return Variant(call)

    return make


EARLY: dict[str, Callable[[Setup], Variant]] = {
    "sync": _early("sync"),
    "runahead": _early("runahead"),
    "graph nested": _early("graph", nodes="nested"),
    "graph flat": _early("graph", nodes="flat"),
    "graph nested, compiled layers": _early("graph", compiled=True, nodes="nested"),
}
"""Every exit computed on the way to the forced one."""

FULL: dict[str, Callable[[Setup], Variant]] = {
    "eager": _full_depth(None),
    "Never(), stream": _fixed(Never(), "sync"),
    "Never(), graph": _fixed(Never(), "graph"),
    "Never(), graph, compiled layers": _fixed(Never(), "graph", compiled=True),
    "torch.compile": _full_depth("default"),
    "torch.compile reduce-overhead": _full_depth("reduce-overhead"),
}
"""All layers, one exit: the fastest of them is the engine to beat."""

ONE_LAYER = "one layer, graph"
ALL = {
    **{name: make for name, make in (EARLY | FULL).items() if "compile" not in name},
    ONE_LAYER: _fixed(Budgeted(1), "graph"),  # the difference says how long a layer takes
    **{name: make for name, make in (EARLY | FULL).items() if "compile" in name},
}
"""In the order in which they are prepared: what takes long to compile comes last."""


def compiles(name: str) -> bool:
    """Whether it takes torch.compile, and so seconds, to make a variant ready."""
    return "compile" in name
