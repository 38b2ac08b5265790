"""Runs a model's own forward with something else in the place of its layers.

The model is not modified: the modules on the way down to the layers are copied for one call (a few
dictionaries; weights, buffers, hooks and everything beside the way are the model's own), and the
copies hold stand-ins where the layers are. So any number of threads may run one model at a time.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from torch import nn

Call = Callable[[int, tuple[Any, ...], dict[str, Any]], Any]
"""What a stand-in does: (number of the layer's path, args, kwargs) -> what the layer would give."""

Tree = dict[str, Any]
"""Names of modules down to the layers: {"encoder": {"layer": {"0": 0, "1": 1}}}."""


class _StandIn:
    """Comes before a layer's own class, so that it looks like the layer and is not run as one."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        number, call = self.__dict__["_eefast_call"]
        return call(number, args, kwargs)


@cache
def _stand_in_class(layer_class: Any) -> type:
    return type(layer_class.__name__, (_StandIn, layer_class), {})


def tree_of(paths: Sequence[str]) -> Tree:
    """The tree of the modules at `paths` (dotted, each once), numbered in that order."""
    tree: Tree = {}
    for number, path in enumerate(paths):
        *parents, name = path.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = number
    return tree


def twin(module: nn.Module, tree: Mapping[str, Any], call: Call) -> Any:
    """A copy of `module` for one call, with stand-ins that ask `call` in the places of `tree`."""
    children = dict(module._modules)
    for name, below in tree.items():
        child = children[name]
        assert child is not None
        if isinstance(below, int):
            state = {**child.__dict__, "_eefast_call": (below, call)}
            children[name] = _made(_stand_in_class(type(child)), state)  # type: ignore[arg-type]
        else:
            children[name] = twin(child, below, call)
    state = {**module.__dict__, "_modules": children}
    state.pop("forward", None)  # a wrapper that is bound to the original
    return _made(type(module), state)


def apart(module: nn.Module, done: dict[int, Any] | None = None) -> Any:
    """A copy of all modules, with the same weights: modes and hooks of the copy are its own."""
    done = {} if done is None else done
    if id(module) not in done:
        state = {k: copy.copy(v) if isinstance(v, dict) else v for k, v in module.__dict__.items()}
        done[id(module)] = made = _made(type(module), state)
        for name, child in module._modules.items():
            made._modules[name] = None if child is None else apart(child, done)
    return done[id(module)]


def _made(cls: type, state: dict[str, Any]) -> Any:
    new: Any = object.__new__(cls)
    object.__setattr__(new, "__dict__", state)  # nn.Module's own looks for parameters in it
    return new
