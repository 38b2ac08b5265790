"""`compile`: from a `MultiExitModel` to a `CompiledModel`."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from eefast.backbones.families import EncoderBackbone
from eefast.lowering import PRECISIONS, NotLowered, PackedLayers, pack
from eefast.multi_exit import MultiExitModel
from eefast.ops import Impl, implementation
from eefast.policies import Policy, policy_class
from eefast.runtime.compiled import CompiledModel
from eefast.runtime.registry import RuntimeName, runtime_for


def compile(
    model: MultiExitModel,
    policy: str | Policy = "beem",
    *,
    runtime: RuntimeName = "auto",
    impl: Impl = "auto",
    dtype: str | torch.dtype | None = None,
    options: Mapping[str, Any] | None = None,
) -> CompiledModel:
    """Make a multi-exit model fast: a drop-in that stops where the policy says so.

    Args:
        model: from `attach_exits` or `MultiExitModel.from_pretrained`. It is put into evaluation
            mode and shares its weights with the result, unless `dtype` asks for a copy.
        policy: a policy, or the name of one: the calibrated policy stored with the model under
            that name, otherwise the setting of the policy's paper, with a warning.
        runtime: how layers and exit steps are driven: "direct" (CPU) reads each decision at once,
            "runahead" (CUDA) enqueues the next layers meanwhile, "graph" (CUDA) captures the whole
            model with its decisions, once per shape, and "sync" (any device) waits for each as the
            papers' code does; "auto" is "direct" on the CPU and "runahead" on CUDA.
        impl: implementation of the exit step (see `eefast.ops.exit_step`).
        dtype: precision of the layers; None: the model as it is. Another one makes a copy. On the
            CPU "float32", "bfloat16" and "int8" (or torch's dtypes of these names) pack the weights
            of the layers for this package's own kernels, if the model is of a family that they
            know; embeddings, exits and all between the linear layers are then float32, and the
            copy has the layers' weights in no other form. `fast.lowering` says in one line what
            runs. Elsewhere, and for other dtypes, the copy is in that dtype.
        options: of the runtime: `depth` for "runahead" (see `RunAheadRuntime`), `length_buckets`,
            `memory_limit`, `nodes` and `back_end` for "graph" (see `GraphRuntime`).

    Raises:
        TypeError: the model has no exits, a precision that `impl` does not take, or an option that
            the runtime does not have.
        ValueError: an unknown policy, runtime or implementation, or one that does not fit.
        RuntimeError: the implementation is not built here, or weights that int8 cannot hold.
    """
    if not isinstance(model, MultiExitModel):
        raise TypeError(
            f"model must be a MultiExitModel, got {type(model).__name__}: a transformers model "
            "without exits gets them from eefast.attach_exits(model), a saved one is loaded with "
            "eefast.MultiExitModel.from_pretrained"
        )
    if not isinstance(options, Mapping | None):
        raise TypeError(f"options must be a dictionary, got {options!r}")
    options = dict(options or {})
    runtime_for(runtime, model.device, options)
    wanted = None if dtype is None else _known_dtype(dtype)
    if isinstance(policy, str):
        policy = _named_policy(policy, model)
    model.eval()  # type: ignore[no-untyped-call]
    layers: PackedLayers | NotLowered = NotLowered("no dtype was asked for")
    if wanted is not None:
        model, layers = _in_precision(model, wanted, impl)
    return CompiledModel(model, policy, runtime, impl, options, layers)


def _known_dtype(dtype: str | torch.dtype) -> torch.dtype:
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if isinstance(found, torch.dtype) and (found.is_floating_point or found == torch.int8):
        return found
    raise TypeError(
        f"dtype must be 'float32', 'bfloat16', 'int8', a torch.dtype such as torch.bfloat16, or "
        f"None; got {dtype!r}"
    )


def _in_precision(
    model: MultiExitModel, dtype: torch.dtype, impl: Impl
) -> tuple[MultiExitModel, PackedLayers | NotLowered]:
    """The model to be compiled, and its packed layers or why there are none.

    Raises:
        ValueError: int8 layers that cannot be packed.
    """
    layers = _packed(model, dtype)
    if isinstance(layers, PackedLayers):
        return _without_layers(model), layers
    if dtype == torch.int8:
        raise ValueError(f"dtype: got int8, which packed layers alone have; {layers.why}")
    if dtype != model.dtype:
        implementation(impl, model.device, dtype, classes=model.num_classes)
        model = copy.deepcopy(model)
        model.to(dtype)  # type: ignore[arg-type]
    return model, layers


def _packed(model: MultiExitModel, dtype: torch.dtype) -> PackedLayers | NotLowered:
    name = str(dtype).removeprefix("torch.")
    if model.device.type != "cpu":
        return NotLowered(f"layers are packed on the CPU, and the model is on {model.device}")
    if name not in PRECISIONS:
        return NotLowered(f"layers are packed in {', '.join(PRECISIONS)}, not in {name}")
    return pack(model.layers, name)


def _without_layers(model: MultiExitModel) -> MultiExitModel:
    """A copy in float32 whose layers have no weights."""
    backbone = model.layers
    assert isinstance(backbone, EncoderBackbone)  # programs are written for these
    memo: dict[int, Any] = {
        id(weight): nn.Parameter(torch.empty_like(weight, device="meta"), requires_grad=False)
        for layer in backbone.layer_modules
        for weight in layer.parameters()
    }
    bare = copy.deepcopy(model, memo)
    bare.to(torch.float32)  # type: ignore[arg-type]
    return bare


def _named_policy(name: str, model: MultiExitModel) -> Policy:
    stored = model.get_policy(name)
    if stored is not None:
        return stored
    policy = policy_class(name).default(model.num_exits)
    # Some thresholds, those in nats, have a meaning for a number of classes only.
    policy = dataclasses.replace(policy, num_classes=model.num_classes)
    if policy.reads_signals:
        warnings.warn(
            f"the model holds no calibrated policy {name!r}; using the paper's setting, {policy}. "
            f"Calibrate on validation data: eefast.calibrate({name!r}, trace), model.set_policy",
            stacklevel=3,
        )
    return policy
