"""`Backbone`: a transformers model driven layer by layer.

transformers runs a model from the first layer to the last. An early exit has to stop in between,
so eefast holds the loop itself and asks the backbone for three things: the hidden states before
layer 1 and what the layers need beside them (`start`), one layer (`layer`), and where the vector
lies that an exit head reads (`readout`). What comes out after layer i is what transformers itself
gives as `hidden_states[i]`.

A family of your own, here one whose blocks add a mask to their scores:

    from dataclasses import dataclass

    from torch import Tensor

    from eefast.backbones import Backbone, Context, register_backbone

    @dataclass
    class ToyContext(Context):
        mask: Tensor | None  # (B, 1, 1, T)

        def select(self, rows):
            return ToyContext(None if self.mask is None else self.mask[rows])

    @register_backbone("toy")  # its config.model_type
    class ToyBackbone(Backbone):
        takes = {"input_ids": "BT", "attention_mask": "BT"}
        main_inputs = ("input_ids",)

        def __init__(self, model):
            super().__init__(model, widths=[model.config.hidden_size] * len(model.blocks))

        def start(self, inputs):
            ids, mask = inputs["input_ids"], inputs.get("attention_mask")
            hidden = self.model.tokens(ids) + self.model.positions.weight[: ids.shape[1]]
            return hidden, ToyContext(None if mask is None else (mask - 1)[:, None, None] * 1e9)

        def layer(self, index, hidden, context):
            return self.model.blocks[index - 1](hidden, context.mask)
"""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

Inputs = Mapping[str, Tensor]
"""What the model's own forward takes, by name, without labels and without None."""

_IDS = frozenset({torch.int64, torch.int32})
_FLOATS = frozenset({torch.float64, torch.float32, torch.float16, torch.bfloat16})
_REAL = _IDS | _FLOATS | {torch.bool, torch.uint8, torch.int8, torch.int16}


class Context(abc.ABC):
    """What the layers of one call need beside the hidden states: masks, rotary tables, windows."""

    @abc.abstractmethod
    def select(self, rows: Tensor) -> Context:
        """The context of the rows `rows` ([K] int64), in that order; what all share stays."""


class Backbone(abc.ABC):
    """A model that is driven layer by layer; it holds the model and never modifies it.

    The model's own modules do the work: dropout follows `model.train()` and `model.eval()`,
    gradients flow, hooks run, and the dtype is the model's.

    Args:
        model: the base model (BertModel, ...).
        widths: of what an exit reads after each layer.
        costs: relative cost of each layer; None: all alike.

    Attributes:
        model: the base model.
        depth: layers are numbered from 1 to depth.
        widths: of what an exit reads after each layer; `depth` numbers.
        costs: relative cost of each layer; `depth` numbers.
        takes: the inputs that the model takes, in the order of its own forward, each with its axes:
            B the samples, T the tokens, 1 the samples or one for all; other letters, any size.
        main_inputs: of these exactly one is given; it says how many samples and tokens there are.
        padding: what pads the inputs that have a token axis, axis 1 (input_ids: the pad token,
            attention_mask: 0, ...). Empty for models without tokens, or without a mask that hides
            padding.
        absent: what an input that is not given stands for, where that is one number.
        readouts: what `choose_readout` can choose from.
        max_length: the longest sequence that the model takes; None: any length, or no tokens.
    """

    takes: Mapping[str, str]
    main_inputs: tuple[str, ...]
    absent: Mapping[str, float] = {"attention_mask": 1}
    readouts: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        model: PreTrainedModel,
        widths: Sequence[int],
        costs: Sequence[float] | None = None,
    ) -> None:
        self.model: Any = model  # its parts differ from family to family
        self.depth = len(widths)
        self.widths = tuple(widths)
        self.costs = (1.0,) * self.depth if costs is None else tuple(costs)
        self._chosen_readout: str | None = None
        self.max_length: int | None = getattr(model.config, "max_position_embeddings", None)
        self.padding: dict[str, float] = {}
        if "attention_mask" in self.takes:
            with_tokens = (name for name, axes in self.takes.items() if axes[1:2] == "T")
            self.padding = dict.fromkeys(with_tokens, 0)
            self.padding["input_ids"] = getattr(model.config, "pad_token_id", None) or 0
        self._dtypes = {
            name: _IDS if name.endswith("_ids") else _FLOATS if name == "inputs_embeds" else _REAL
            for name in self.takes
        }
        self._embedding: Any = None  # of tokens
        if "inputs_embeds" in self.takes:
            with contextlib.suppress(NotImplementedError):  # some families do not say where
                self._embedding = model.get_input_embeddings()

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = self.model.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """Of the model's weights and hidden states."""
        dtype: torch.dtype = self.model.dtype
        return dtype

    def check(self, inputs: Inputs) -> tuple[int, int | None]:
        """The number of samples and of tokens (None: no tokens) of inputs that the model can take.

        The tensors' numbers are not read; if `start` fails because of them, `check_ids` says so.

        Raises:
            TypeError: what is no tensor.
            ValueError: not exactly one of `main_inputs`; a name that the model does not take; an
                input of another shape or dtype than the model takes; a sequence that is empty or
                longer than `max_length`; tensors without numbers, on the meta device.
        """
        main = self._main(inputs)
        self._check_tensors(inputs)
        shape, axes = inputs[main].shape, self.takes[main]
        if len(shape) != len(axes):
            raise ValueError(f"{main}: got shape {list(shape)}; wanted [{', '.join(axes)}]")
        samples, tokens = shape[0], None
        if axes[1:2] == "T":
            tokens, longest = shape[1], self.max_length
            if tokens < 1 or (longest is not None and tokens > longest):
                limit = "at least 1" if longest is None else f"1 to {longest}"
                raise ValueError(f"{main}: got {tokens} tokens per sequence; wanted {limit}")
        if main == "inputs_embeds":
            width = getattr(self._embedding, "embedding_dim", shape[2])
            if shape[2] != width:
                raise ValueError(f"{main}: got shape {list(shape)}; wanted [B, T, {width}]")
        plain = (samples, tokens)
        for name, tensor in inputs.items():
            # One comparison for the usual case: this comes with every call.
            if name != main and not (
                tensor.shape == plain and self.takes.get(name) in ("BT", "1T")
            ):
                self._check_shape(name, tensor.shape, samples, tokens, main)
        return samples, tokens

    def padding_only(self, samples: int, tokens: int) -> dict[str, Tensor]:
        """`input_ids` [samples, tokens] that are all padding: for calls whose answer has no use.

        Raises:
            TypeError: the model takes no `input_ids`.
        """
        padding = self.padding.get("input_ids")
        if padding is None:
            raise TypeError("the model takes no input_ids")
        return {"input_ids": torch.full((samples, tokens), int(padding), device=self.device)}

    def check_ids(self, inputs: Inputs) -> None:
        """Refuse ids that a table of the model does not have. For after an error: ids are read.

        On devices other than the CPU nothing is read: that would wait.

        Raises:
            ValueError: `input_ids`, `token_type_ids` or `position_ids` that are out of range.
        """
        config = self.model.config
        for name, size in {
            "input_ids": getattr(self._embedding, "num_embeddings", None),
            "token_type_ids": getattr(config, "type_vocab_size", None),
            "position_ids": getattr(config, "max_position_embeddings", None),
        }.items():
            ids = inputs.get(name)
            if size is not None and ids is not None and ids.is_cpu and ids.numel():
                low, high = (int(end) for end in torch.aminmax(ids))
                if low < 0 or high >= size:
                    raise ValueError(f"{name}: got {low} to {high}; wanted 0 to {size - 1}")

    def choose_readout(self, readout: str) -> None:
        """Let exits read something else than the family's own classifier reads.

        Args:
            readout: one of `readouts`.

        Raises:
            ValueError: the family cannot be read so.
        """
        if readout not in self.readouts:
            raise ValueError(
                f"readout: a {self.model.config.model_type} model can be read by "
                f"{', '.join(map(repr, self.readouts)) or 'its own readout'}; got {readout!r}"
            )
        self._chosen_readout = readout

    @abc.abstractmethod
    def start(self, inputs: Inputs) -> tuple[Tensor, Context]:
        """The hidden states before layer 1, and the context; `check` has passed the inputs.

        On devices other than the CPU the host reads no tensor, so that the call can be captured
        into a CUDA graph.
        """

    @abc.abstractmethod
    def layer(self, index: int, hidden: Tensor, context: Any) -> Tensor:
        """The hidden states after layer `index` (1-based), given those before it."""

    def run(self, layers: range, hidden: Tensor, context: Any) -> Tensor:
        """The hidden states after some layers (1-based, one after the other)."""
        for index in layers:
            hidden = self.layer(index, hidden, context)
        return hidden

    def readout(self, index: int, hidden: Tensor, context: Any) -> tuple[Tensor, Tensor | None]:
        """What an exit after layer `index` reads, as `eefast.ops.exit_step` takes it.

        Index 0 is for `hidden` as `start` gives it.

        ([R, T, D], None): the first token of each row, which is what is read unless a family says
        otherwise. ([R, D], None): a vector per row. ([M, D], [R] int64): row r is vector
        offsets[r] of the flattened tokens.
        """
        return hidden, None

    def _main(self, inputs: Inputs) -> str:
        main = None
        for name in self.main_inputs:
            if name in inputs:
                if main is not None:
                    raise ValueError(f"{main}, {name}: got both; wanted one of them")
                main = name
        if main is None:
            raise ValueError(
                f"{', '.join(self.main_inputs)}: got neither; wanted one of them"
                if len(self.main_inputs) > 1
                else f"{self.main_inputs[0]}: got none, only {sorted(inputs)}"
            )
        return main

    def _check_tensors(self, inputs: Inputs) -> None:
        for name, tensor in inputs.items():
            if not isinstance(tensor, Tensor):
                raise TypeError(
                    f"{name}: got {type(tensor).__name__}; wanted a tensor, as tokenizers give "
                    "with return_tensors='pt'"
                )
            wanted = self._dtypes.get(name, _REAL)
            if tensor.dtype not in wanted:
                names = ", ".join(sorted(map(str, wanted)))
                raise ValueError(f"{name}: got {tensor.dtype}; wanted one of {names}")
            if tensor.is_meta and self.device.type != "meta":
                raise ValueError(f"{name}: got device meta; wanted {self.device}")

    def _check_shape(
        self, name: str, shape: torch.Size, samples: int, tokens: int | None, main: str
    ) -> None:
        axes = self.takes.get(name)
        if axes is None:
            raise ValueError(f"{name}: a {self.model.config.model_type} model takes none")
        sizes = {"B": (samples,), "1": (samples, 1), "T": (tokens,)}
        if len(shape) != len(axes) or any(
            size not in sizes.get(axis, (size,)) for axis, size in zip(axes, shape, strict=True)
        ):
            wanted = ", ".join(str(sizes[axis][0]) if axis in sizes else axis for axis in axes)
            raise ValueError(f"{name}: got shape {list(shape)}; wanted [{wanted}], as {main}")


def gathered(vectors: Tensor, offsets: Tensor | None) -> Tensor:
    """The vectors [R, D] of a readout, for heads that are torch modules; views where it can be."""
    if offsets is not None:
        return vectors.index_select(0, offsets)
    return vectors.select(1, 0) if vectors.dim() == 3 else vectors


def embedded(backbone: Backbone, hidden: Tensor, context: Context) -> Tensor:
    """The vectors [R, D] before layer 1, to be compared with what an exit after layer 1 reads.

    Raises:
        ValueError: layer 1 gives vectors of another width.
    """
    vectors = gathered(*backbone.readout(0, hidden, context))
    width = backbone.widths[0]
    if vectors.shape[-1] != width:
        raise ValueError(
            "a policy by similarity compares the embedding with layer 1, and this model's are of "
            f"widths {vectors.shape[-1]} and {width}"
        )
    return vectors
