"""`Backbone`: the adapter of one transformers family, driven layer by layer.

transformers runs a model from the first layer to the last. An early exit has to stop in between,
so eefast holds the loop itself and asks the adapter for three things: the hidden states before
layer 1 (`embed`), one layer (`layer`), and the vector that an exit head reads (`readout`). What
comes out after layer i is what transformers itself gives as `hidden_states[i]`.

A family of your own, here one without token types whose blocks add a mask to their scores:

    from eefast.backbones import Backbone, register_backbone

    @register_backbone("toy")  # its config.model_type
    class ToyBackbone(Backbone):
        takes = frozenset({"position_ids"})

        def _embed(self, input_ids, token_type_ids, position_ids, inputs_embeds):
            if inputs_embeds is None:
                inputs_embeds = self.model.tokens(input_ids)
            if position_ids is None:
                return inputs_embeds + self.model.positions.weight[: inputs_embeds.shape[1]]
            return inputs_embeds + self.model.positions(position_ids)

        def layer(self, index, hidden, inputs):
            return self.model.blocks[index - 1](hidden, inputs.mask)
"""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar, NamedTuple

from torch import Tensor
from transformers import PreTrainedModel

from eefast.backbones.masks import attention_bias, hides_nothing


class ModelInputs(NamedTuple):
    """What an encoder is called with, in the order of its arguments."""

    input_ids: Tensor | None = None  # (B, T) int64
    attention_mask: Tensor | None = None  # (B, T); 0 hides a token, anything else shows it
    token_type_ids: Tensor | None = None  # (B, T) int64; None: all 0
    position_ids: Tensor | None = None  # (B, T) or (1, T) int64
    inputs_embeds: Tensor | None = None  # (B, T, E), dtype of the model


def without_idle_mask(inputs: ModelInputs) -> ModelInputs:
    """The inputs without a mask that hides nothing, as far as the host can tell without waiting."""
    if inputs.attention_mask is None or not hides_nothing(inputs.attention_mask):
        return inputs
    return inputs._replace(attention_mask=None)


@dataclasses.dataclass(frozen=True, slots=True)
class LayerInputs:
    """What every layer needs beside the hidden states; made by `embed`, the same for all layers.

    A tensor belongs to the samples ([B, ...]) or is shared by all of them ([1, ...]). A family that
    needs more subclasses this with further fields.
    """

    mask: Tensor | None = None  # (B, 1, 1, T), added to the attention scores; None hides nothing
    position_bias: Tensor | None = None  # (1, heads, T, T), added to the attention scores

    def select(self, rows: Tensor) -> LayerInputs:
        """The inputs of the samples `rows` ([K] int64), in that order; shared tensors stay."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        kept = {
            name: value.index_select(0, rows)
            for name, value in values.items()
            if isinstance(value, Tensor) and value.shape[0] != 1
        }
        return dataclasses.replace(self, **kept)


class Backbone(abc.ABC):
    """The adapter of one model family around a base model, which it holds and never modifies.

    The model's own modules do the work: dropout follows `model.train()` and `model.eval()`,
    gradients flow, hooks run, and the dtype is the model's. The attention implementation is read
    at each `embed`, so `model.set_attn_implementation` takes effect.

    Attributes:
        model: the base model (BertModel, ...).
        num_layers: L; layers are numbered from 1 to L.
        hidden_size: D.
        max_length: the longest sequence that the model takes, or None for any length.
        padding_token: the token that fills up short sequences.
        takes: which of `token_type_ids` and `position_ids` the family knows.
    """

    takes: ClassVar[frozenset[str]] = frozenset({"token_type_ids", "position_ids"})

    def __init__(self, model: PreTrainedModel) -> None:
        """Raises ValueError for a decoder: its tokens see only those before them."""
        config = model.config
        for flag in ("is_decoder", "add_cross_attention", "is_causal"):
            if getattr(config, flag, False):
                raise ValueError(f"model: got a decoder (config.{flag}=True); wanted an encoder")
        self.model: Any = model  # its parts are the family's own affair
        self.num_layers: int = config.num_hidden_layers
        self.hidden_size: int = config.hidden_size
        self.max_length: int | None = getattr(config, "max_position_embeddings", None)
        self.padding_token: int = getattr(config, "pad_token_id", None) or 0
        self._reads_first_tokens = type(self).readout is Backbone.readout

    def embed(
        self,
        input_ids: Tensor | None = None,  # (B, T) int64
        attention_mask: Tensor | None = None,  # (B, T); 0 hides a token, anything else shows it
        token_type_ids: Tensor | None = None,  # (B, T) int64
        position_ids: Tensor | None = None,  # (B, T) or (1, T) int64
        inputs_embeds: Tensor | None = None,  # (B, T, E), dtype of the model
    ) -> tuple[Tensor, LayerInputs]:
        """The hidden states [B, T, D] before layer 1, and what the layers need beside them.

        On the CPU a mask that hides nothing is dropped. On other devices the host reads no tensor.

        Raises:
            ValueError: as `check`, or an unsupported attention implementation.
        """
        inputs = ModelInputs(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        self.check(inputs)
        return self.embed_unchecked(without_idle_mask(inputs))

    def check(self, inputs: ModelInputs) -> tuple[int, int]:
        """The number of samples and of tokens of inputs that the model can take.

        Raises:
            ValueError: not exactly one of `input_ids` and `inputs_embeds`; a sequence that is empty
                or longer than `max_length`; an `attention_mask` of another shape than [B, T]; an
                argument that the family does not know.
        """
        input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds = inputs
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError("input_ids, inputs_embeds: got neither; wanted one of them")
            name, shape, layout = "input_ids", input_ids.shape, "BT"
        elif input_ids is None:
            name, shape, layout = "inputs_embeds", inputs_embeds.shape, "BTE"
        else:
            raise ValueError("input_ids, inputs_embeds: got both; wanted one of them")
        if len(shape) != len(layout):
            raise ValueError(f"{name}: got shape {list(shape)}; wanted [{', '.join(layout)}]")
        length, longest = shape[1], self.max_length
        if length < 1 or (longest is not None and length > longest):
            limit = "at least 1" if longest is None else f"1 to {longest}"
            raise ValueError(f"{name}: got {length} tokens per sequence; wanted {limit}")
        if attention_mask is not None and attention_mask.shape != shape[:2]:
            got, asked = list(attention_mask.shape), list(shape[:2])
            raise ValueError(f"attention_mask: got shape {got}; wanted {asked}, as {name}")
        if token_type_ids is not None:
            self._must_take("token_type_ids")
        if position_ids is not None:
            self._must_take("position_ids")
        return shape[0], length

    def embed_unchecked(self, inputs: ModelInputs) -> tuple[Tensor, LayerInputs]:
        """As `embed`, of inputs that `check` has passed.

        The host reads no tensor on any device, so that the call can be captured into a CUDA graph.

        Raises:
            ValueError: an unsupported attention implementation.
        """
        input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds = inputs
        hidden = self._embed(input_ids, token_type_ids, position_ids, inputs_embeds)
        return hidden, self._layer_inputs(hidden, attention_mask)

    @abc.abstractmethod
    def _embed(
        self,
        input_ids: Tensor | None,
        token_type_ids: Tensor | None,
        position_ids: Tensor | None,
        inputs_embeds: Tensor | None,
    ) -> Tensor:
        """The hidden states [B, T, D] before layer 1; `check` has validated the arguments."""

    def _layer_inputs(self, hidden: Tensor, attention_mask: Tensor | None) -> LayerInputs:
        """What the layers need beside `hidden` [B, T, D], computed once per call."""
        implementation = self.model.config._attn_implementation
        return LayerInputs(attention_bias(attention_mask, hidden, implementation))

    @abc.abstractmethod
    def layer(self, index: int, hidden: Tensor, inputs: LayerInputs) -> Tensor:
        """The hidden states [B, T, D] after layer `index` (1-based), given those before it."""

    def readout(self, hidden: Tensor) -> Tensor:
        """The vectors [B, D] that an exit head reads: a view of the first tokens, not a copy."""
        return hidden.select(1, 0)

    def for_exit_step(self, hidden: Tensor) -> Tensor:
        """What `eefast.ops.exit_step` is given to read: `readout(hidden)` or, if that is the first
        tokens, `hidden` itself: the op finds them, and a view costs as much as a small exit."""
        return hidden if self._reads_first_tokens else self.readout(hidden)

    def _must_take(self, name: str) -> None:
        if name not in self.takes:
            raise ValueError(f"{name}: a {self.model.config.model_type} model takes none")
