"""`compile`: from a `MultiExitModel` to a `CompiledModel`."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

import torch

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
    dtype: torch.dtype | None = None,
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
        dtype: run a copy of the model in this precision; None: the model as it is.
        options: of the runtime: `depth` for "runahead" (see `RunAheadRuntime`), `length_buckets`,
            `memory_limit`, `nodes` and `back_end` for "graph" (see `GraphRuntime`).

    Raises:
        TypeError: the model has no exits, a precision that `impl` does not take, or an option that
            the runtime does not have.
        ValueError: an unknown policy, runtime or implementation, or one that does not fit.
        RuntimeError: the implementation is not built here.
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
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise TypeError(f"dtype must be a torch.dtype such as torch.bfloat16, got {dtype!r}")
    if isinstance(policy, str):
        policy = _named_policy(policy, model)
    if dtype is not None and dtype != model.dtype:
        implementation(impl, model.device, dtype, classes=model.num_classes)
        model = copy.deepcopy(model)
        model.to(dtype)  # type: ignore[arg-type]
    return CompiledModel(model, policy, runtime, impl, options)


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
