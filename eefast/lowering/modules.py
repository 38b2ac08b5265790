"""From modules to parts of a program; what is not exactly what it seems is refused."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import activations as theirs

from eefast.lowering.program import Activation, Linear, Norm

_PLAIN = (nn.Linear, nn.LayerNorm, nn.Dropout, nn.Identity, nn.ModuleList)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_RECORDS_OUTPUTS = "transformers.utils.output_capturing"  # hooks that change nothing
_ACTIVATIONS: dict[type[nn.Module], Activation] = {
    theirs.GELUActivation: Activation.GELU,
    theirs.GELUTanh: Activation.GELU_TANH,
    theirs.NewGELUActivation: Activation.GELU_TANH,
    theirs.FastGELUActivation: Activation.GELU_TANH,
    theirs.AccurateGELUActivation: Activation.GELU_TANH,
    nn.ReLU: Activation.RELU,
    theirs.SiLUActivation: Activation.SILU,
    nn.SiLU: Activation.SILU,
}


class CannotLowerError(Exception):
    """A module that a program does not describe; the message says why."""


def check_module(
    module: nn.Module, classes: tuple[str, ...], also: tuple[type[nn.Module], ...] = ()
) -> None:
    """Refuse a layer, embeddings or a norm that compute something else than class and weights say.

    Args:
        module: to be lowered.
        classes: that it may be of, by name.
        also: what it may have for parts besides linears, layer norms and dropout.

    Raises:
        CannotLowerError: a module of a class that is not in `classes`; in it, modules of foreign
            classes (adapters, quantised linears), hooks, a `forward` of its own, training mode, or
            parameters that are not plain tensors.
    """
    name = type(module).__name__
    if name not in classes or not (type(module) in _PLAIN or _is_known(module)):
        raise CannotLowerError(f"it is {_class(module)}; wanted {' or '.join(classes)}")
    for path, part in module.named_modules():
        where = f"{name}.{path}" if path else name
        if part.training:
            raise CannotLowerError(f"{where} is in training mode")
        if type(part) not in (*_PLAIN, *also) and not _is_known(part):
            raise CannotLowerError(f"{where} is {_class(part)}")
        if "forward" in vars(part):
            raise CannotLowerError(f"{where} has a forward of its own")
        for hooks in _HOOKS:
            if any(map(_changes_something, getattr(part, hooks).values())):
                raise CannotLowerError(f"{where} has hooks")
        for parameter in part.parameters(recurse=False):
            if type(parameter) is not nn.Parameter or not parameter.is_floating_point():
                raise CannotLowerError(f"{where} has weights of another kind than plain floats")
            if parameter.is_meta:
                raise CannotLowerError(f"{where} has no weights: it is on the meta device")


def linear(*parts: nn.Module) -> Linear:
    """One linear of several with the same input.

    Raises:
        CannotLowerError: what is no `nn.Linear`, or some parts with a bias and some without.
    """
    weights: list[Tensor] = []
    biases: list[Tensor] = []
    for part in parts:
        if type(part) is not nn.Linear:
            raise CannotLowerError(f"a linear is {_class(part)}")
        weights.append(part.weight.detach())
        if part.bias is not None:
            biases.append(part.bias.detach())
    if len(biases) not in (0, len(parts)):
        raise CannotLowerError("of q, k and v some have a bias and some have none")
    return Linear(tuple(weights), tuple(biases))


def norm(module: nn.Module) -> Norm | None:
    """A layer norm, or None for the identity.

    Raises:
        CannotLowerError: another kind of norm, or one over more axes than the last.
    """
    if type(module) is nn.Identity:
        return None
    if type(module) is not nn.LayerNorm or len(module.normalized_shape) != 1:
        raise CannotLowerError(f"a norm is {_class(module)}; wanted LayerNorm over the last axis")
    weight, bias = (None if p is None else p.detach() for p in (module.weight, module.bias))
    return Norm(weight, bias, module.eps)


def activation(module: nn.Module) -> Activation:
    """Of an activation's module.

    Raises:
        CannotLowerError: one that programs do not have.
    """
    found = _ACTIVATIONS.get(type(module))
    if found is None:
        known = ", ".join(kind.value for kind in Activation)
        raise CannotLowerError(f"the activation is {type(module).__name__}; wanted one of {known}")
    return found


def _changes_something(hook: Any) -> bool:
    return getattr(hook, "__module__", None) != _RECORDS_OUTPUTS


def _is_known(module: nn.Module) -> bool:
    return type(module).__module__.startswith(("transformers.", "torch.nn.modules.activation"))


def _class(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__name__}"
