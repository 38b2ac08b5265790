"""`over_inputs`: a `forward` that takes whatever the model's own forward takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache, wraps
from inspect import Parameter
from types import MethodType
from typing import Any

from torch import Tensor


class over_inputs:  # noqa: N801 (a decorator)
    """Makes a method `forward(self, inputs, labels, return_dict)` take each input on its own.

    The inputs are those that `self.input_names` lists, by position in that order or by name, and
    after them `labels` and `return_dict`. `inspect.signature(model.forward)` names them all:
    Trainer keeps a data set's columns by it, pipelines look into it. None means not given.

    `token_type_ids` are taken, and left out, where the model has no use for them: tokenizers give
    them all the same.
    """

    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method
        self._taking = cache(self._made_for)
        self.__doc__ = method.__doc__

    def __get__(self, model: Any, owner: type | None = None) -> Any:
        if model is None:
            return self._taking(())
        # A method like any other: accelerate takes it apart and puts it together again.
        return MethodType(self._taking(model.input_names), model)

    def _made_for(self, names: tuple[str, ...]) -> Callable[..., Any]:
        method = self._method

        @wraps(method)
        def forward(
            self: Any,
            *args: Tensor | None,
            labels: Tensor | None = None,
            return_dict: bool | None = None,
            **inputs: Tensor | None,
        ) -> Any:
            if args:
                _name(args, names, inputs)
            given = {}
            for name, value in inputs.items():
                if name in names:
                    if value is not None:
                        given[name] = value
                elif name != "token_type_ids":
                    raise TypeError(f"forward got an unexpected input {name!r}; it takes {names}")
            return method(self, given, labels, return_dict)

        del forward.__wrapped__  # or it would be taken for the undecorated method
        positional, keyword = Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY
        parameters = [
            Parameter("self", positional),
            *(Parameter(name, positional, default=None) for name in names),
            *(Parameter(name, keyword, default=None) for name in ("labels", "return_dict")),
        ]
        forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return forward


def _name(
    args: tuple[Tensor | None, ...], names: tuple[str, ...], inputs: dict[str, Tensor | None]
) -> None:
    """Put what was given by position under its name."""
    if len(args) > len(names):
        raise TypeError(f"forward takes {len(names)} inputs ({', '.join(names)}), got more")
    for name, value in zip(names, args, strict=False):
        if name in inputs:
            raise TypeError(f"forward got multiple values for {name!r}")
        inputs[name] = value
