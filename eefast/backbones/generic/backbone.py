"""`GenericBackbone`: any transformers model, walked through the model's own forward."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from eefast.backbones.base import Backbone, Inputs
from eefast.backbones.generic.anatomy import Anatomy
from eefast.backbones.generic.context import Arguments, GenericContext, Rows, rows_of, structure_of
from eefast.backbones.generic.signature import takes_of
from eefast.backbones.generic.twin import tree_of, twin
from eefast.backbones.masks import mean_of_shown


class _Done(Exception):  # noqa: N818 (nothing went wrong)
    """The last layer was asked for: what the model does after it is not needed."""


class GenericBackbone(Backbone):
    """Around any transformers model that `study` has found an `Anatomy` of.

    `start` runs the model's own forward up to its last layer, with each layer replaced by one that
    records its arguments and gives its hidden states back: that yields the embeddings and each
    layer's own masks, rotary tables and windows. The layers are then called with them.
    """

    def __init__(self, model: PreTrainedModel, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.takes: Mapping[str, str] = takes_of(model)
        self.main_inputs = tuple(
            name for name in (model.main_input_name, "inputs_embeds") if name in self.takes
        )
        super().__init__(model, anatomy.widths, anatomy.costs)
        if model.main_input_name == "input_ids":
            self.readouts = ("first", "last", "mean")  # type: ignore[misc]
        if not anatomy.padded:
            self.padding = {}
        paths = list(dict.fromkeys(anatomy.calls))
        self._tree = tree_of(paths)
        self._parents = list(dict.fromkeys(path.rpartition(".")[0] for path in anatomy.calls))
        self._find_layers()
        self._norm = _place(model, anatomy.norm) if anatomy.norm else None
        self._settings: dict[str, Any] = {}
        if hasattr(model.config.get_text_config(), "use_cache"):
            self._settings["use_cache"] = False
        for name in ("output_hidden_states", "output_attentions"):
            if getattr(model.config, name, False):  # transformers would hang hooks on the layers
                self._settings[name] = False
        self._rows: dict[Any, Rows] = {}

    def choose_readout(self, readout: str) -> None:
        """See `Backbone.choose_readout`."""
        super().choose_readout(readout)
        self.anatomy = dataclasses.replace(self.anatomy, pooling=readout)

    def check(self, inputs: Inputs) -> tuple[int, int | None]:
        """As `Backbone.check`; inputs without known axes may have any shape."""
        main = self._main(inputs)
        if not self.takes[main]:
            self._check_tensors(inputs)
            unknown = sorted(inputs.keys() - self.takes.keys())
            if unknown:
                kind = self.model.config.model_type
                raise ValueError(f"{', '.join(unknown)}: a {kind} model takes none")
            return inputs[main].shape[0], None
        return super().check(inputs)

    def _check_shape(
        self, name: str, shape: torch.Size, samples: int, tokens: int | None, main: str
    ) -> None:
        if self.takes.get(name) != "":
            super()._check_shape(name, shape, samples, tokens, main)

    def start(self, inputs: Inputs) -> tuple[Tensor, GenericContext]:
        """The hidden states before layer 1, and the context; `check` has passed the inputs."""
        samples = inputs[self._main(inputs)].shape[0]
        rows = partial(self._rows_of, dict(inputs))
        if samples == 0:  # transformers' layers cannot split an empty batch into heads
            calls = [Arguments((), {}, None)] * self.depth
            return self._nothing(1), GenericContext(calls, 0, None, None, rows)
        if any(self.model.get_submodule(p)._modules is not kept for p, kept in self._lists):
            self._find_layers()
        hidden, calls = self._prelude(inputs)
        return hidden, GenericContext(
            calls, samples, self._last_tokens(inputs), self._shown(inputs, hidden), rows
        )

    def _find_layers(self) -> None:
        """Notes where the layers are kept, so that one that is replaced is seen.

        Raises:
            ValueError: there are fewer than there were.
        """
        self._lists = [(path, self.model.get_submodule(path)._modules) for path in self._parents]
        places = [_place(self.model, path) for path in self.anatomy.calls]
        gone = sorted({name for modules, name in places if modules.get(name) is None})
        if gone:
            raise ValueError(
                f"model: its layers {', '.join(gone)} are gone since it got exits; give the "
                "changed model exits with eefast.attach_exits"
            )
        self._places = places

    def layer(self, index: int, hidden: Tensor, context: Any) -> Tensor:
        """The hidden states after layer `index`, given those before it.

        Raises:
            IndexError: an index outside 1..depth.
        """
        if not 1 <= index <= self.depth:
            raise IndexError(f"index: got layer {index}; wanted 1 to {self.depth}")
        if hidden.shape[0] == 0:
            return hidden
        modules, name = self._places[index - 1]
        args, kwargs, called = context.calls[index - 1]
        module: Any = modules[name]
        if called is None:
            after = module(hidden, *args, **kwargs)
        else:
            after = module(*args, **{called: hidden}, **kwargs)
        return first_of(after)

    def readout(self, index: int, hidden: Tensor, context: Any) -> tuple[Tensor, Tensor | None]:
        """As the family's own classifier reads: first or last token, or the mean; normed."""
        if hidden.shape[0] == 0:
            return self._nothing(index), None
        norm = None if self._norm is None else self._norm[0][self._norm[1]]
        if self.widths[index - 1] != self.widths[-1]:
            norm = None  # it belongs to another width
        pooling, after = self.anatomy.pooling, self.anatomy.norm_after
        if pooling in ("mean", "patches"):
            hidden = hidden if norm is None or after else norm(hidden)
            vectors = self._mean(hidden, context)
            return (norm(vectors) if norm is not None and after else vectors), None
        if pooling == "first":
            return (hidden, None) if norm is None else (norm(hidden[:, 0]), None)
        tokens = hidden.flatten(0, 1)
        offsets = torch.arange(0, len(tokens), hidden.shape[1], device=hidden.device) + context.last
        vectors = tokens.index_select(0, offsets)
        return vectors if norm is None else norm(vectors), None

    def _mean(self, hidden: Tensor, context: GenericContext) -> Tensor:
        if hidden.dim() == 4:  # (B, C, H, W)
            return hidden.mean((2, 3))
        if self.anatomy.pooling == "patches":
            return hidden[:, 1:].mean(1)
        return mean_of_shown(hidden, context.shown)

    def _nothing(self, index: int) -> Tensor:
        return torch.zeros((0, self.widths[index - 1]), device=self.device, dtype=self.dtype)

    def _prelude(self, inputs: Inputs) -> tuple[Tensor, list[Arguments]]:
        calls: list[Arguments] = []
        first: list[Tensor] = []
        outputs = self.anatomy.outputs

        def record(number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            hidden, arguments = split(args, kwargs)
            calls.append(arguments)
            if not first:
                first.append(hidden)
            if len(calls) == self.depth:
                raise _Done
            more = outputs[len(calls) - 1]
            return (hidden, *[None] * (more - 1)) if more else hidden

        try:
            twin(self.model, self._tree, record)(**inputs, **self._settings)
        except _Done:
            return first[0], calls
        raise RuntimeError(
            f"model: called {len(calls)} of its {self.depth} layers. In training, layers that are "
            "left out at random (config.layerdrop) cannot have exits: set it to 0"
        )

    def _rows_of(self, inputs: dict[str, Tensor], calls: list[Arguments]) -> Rows:
        """Which of the recorded tensors belong to samples; found once for each form of inputs."""
        samples = inputs[self._main(inputs)].shape[0]
        given = frozenset((name, tensor.shape[0] == 1) for name, tensor in inputs.items())
        form = (given, structure_of(calls, samples))
        if form not in self._rows:
            twice = {
                name: torch.cat((tensor, tensor)) if tensor.shape[0] == samples else tensor
                for name, tensor in inputs.items()
            }
            with torch.no_grad():
                self._rows[form] = rows_of(calls, self._prelude(twice)[1], samples)
        return self._rows[form]

    def _last_tokens(self, inputs: Inputs) -> Tensor | None:
        if self.anatomy.pooling != "last":
            return None
        main = inputs[self._main(inputs)]
        mask = inputs.get("attention_mask")
        pad = getattr(self.model.config.get_text_config(), "pad_token_id", None)
        if "input_ids" in inputs and pad is not None:
            mask = main != pad  # as transformers' classifiers have it, whatever the mask says
        places = torch.arange(main.shape[1], device=main.device)
        if mask is None:
            return places[-1].expand(main.shape[0])
        return (places * (mask != 0)).argmax(-1)

    def _shown(self, inputs: Inputs, hidden: Tensor) -> Tensor | None:
        mask = inputs.get("attention_mask")
        if self.anatomy.pooling != "mean" or mask is None:
            return None
        if mask.shape != hidden.shape[:2]:
            # Of samples of sound, where a hidden vector stands for some hundreds of them.
            shrunk = getattr(self.model, "_get_feature_vector_attention_mask", None)
            if shrunk is None:
                return None  # as the model's own classifier, which takes the mean of all
            mask = shrunk(hidden.shape[1], mask)
        return mask != 0


def _place(model: Any, path: str) -> tuple[dict[str, Any], str]:
    # Where a module is kept, rather than the module: one that was replaced since is seen.
    parent, _, name = path.rpartition(".")
    return model.get_submodule(parent)._modules, name


def split(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Arguments]:
    """The hidden states of a layer's call, and its other arguments."""
    if args and isinstance(args[0], Tensor):
        return args[0], Arguments(args[1:], kwargs, None)
    name = (
        "hidden_states"
        if "hidden_states" in kwargs
        else next((name for name, value in kwargs.items() if isinstance(value, Tensor)), None)
    )
    if name is None:
        raise TypeError("a layer was called without a tensor")
    return kwargs[name], Arguments(args, {k: v for k, v in kwargs.items() if k != name}, name)


def first_of(output: Any) -> Tensor:
    """The hidden states that a layer gives: a tensor, or the first of several values."""
    return output if isinstance(output, Tensor) else output[0]
