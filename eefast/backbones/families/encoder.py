"""`EncoderBackbone`: what the families of BERT's plan have in common."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers import PreTrainedModel

from eefast.backbones.base import Backbone, Context, Inputs
from eefast.backbones.masks import attention_bias, hides_nothing, mean_of_shown


@dataclasses.dataclass(frozen=True, slots=True)
class EncoderContext(Context):
    """The same for all layers."""

    mask: Tensor | None = None  # (B, 1, 1, T), added to the attention scores; None hides nothing
    shown: Tensor | None = None  # (B, T) bool: which tokens count in a mean; None: all

    def select(self, rows: Tensor) -> EncoderContext:
        if self.mask is None:
            return self
        return dataclasses.replace(
            self,
            mask=selected(self.mask, rows),
            shown=None if self.shown is None else selected(self.shown, rows),
        )


class EncoderBackbone(Backbone):
    """An `embeddings` module, then one module per layer, each called with hidden states and mask.

    Layers are called as modules, never through their `forward` or their parts: gradient
    checkpointing, sharding, off-loading and users' hooks live in the call. Of its arguments only
    these two matter to an encoder; without the others, nothing has to pass through four levels of
    keyword arguments. The attention implementation is read at each `start`, so
    `model.set_attn_implementation` takes effect.

    Raises:
        ValueError: a decoder: its tokens see only those before them.
    """

    takes: Mapping[str, str] = {
        "input_ids": "BT",
        "attention_mask": "BT",  # 0 hides a token, anything else shows it
        "token_type_ids": "1T",
        "position_ids": "1T",
        "inputs_embeds": "BTE",
    }
    main_inputs: tuple[str, ...] = ("input_ids", "inputs_embeds")
    absent: Mapping[str, float] = {"attention_mask": 1, "token_type_ids": 0}
    readouts: ClassVar[tuple[str, ...]] = ("first", "mean")

    def __init__(self, model: PreTrainedModel) -> None:
        config: Any = model.config
        for flag in ("is_decoder", "add_cross_attention", "is_causal"):
            if getattr(config, flag, False):
                raise ValueError(f"model: got a decoder (config.{flag}=True); wanted an encoder")
        self._layers = self._stack(model)
        super().__init__(model, [config.hidden_size] * len(self._layers))

    @abc.abstractmethod
    def _stack(self, model: Any) -> Mapping[str, nn.Module]:
        """The modules of layers 1, 2, ... under "0", "1", ..., as an nn.ModuleList keeps them.

        That is the list's own `_modules` where there is a list: looking a layer up costs a tenth of
        indexing the list, and one that was replaced since (wrapped by FSDP, say) is seen.
        """

    @property
    def layer_modules(self) -> tuple[nn.Module, ...]:
        """The modules of layers 1, 2, ..., as the model has them now; some may be the same one."""
        return tuple(self._stack(self.model).values())

    def check(self, inputs: Inputs) -> tuple[int, int | None]:
        """As `Backbone.check`; a list of layers that was replaced as a whole is seen here.

        Raises:
            ValueError: inputs that the model cannot take, or another number of layers than before.
        """
        self._layers = self._stack(self.model)
        if len(self._layers) != self.depth:
            raise ValueError(
                f"model: has {len(self._layers)} layers, and had {self.depth} when it got exits; "
                "give the changed model exits with eefast.attach_exits"
            )
        return super().check(inputs)

    def start(self, inputs: Inputs) -> tuple[Tensor, EncoderContext]:
        """The hidden states [B, T, D] before layer 1, and the context.

        On the CPU a mask that hides nothing is dropped. On other devices the host reads no tensor.

        Raises:
            ValueError: an unsupported attention implementation.
        """
        embedded = {"input_ids": None, **inputs}  # DistilBERT wants to be told
        mask = embedded.pop("attention_mask", None)
        if mask is not None and hides_nothing(mask):
            mask = None
        hidden = self._embed(embedded)
        return hidden, self.context(hidden, hidden.shape[1], mask, inputs)

    def _embed(self, inputs: Mapping[str, Tensor | None]) -> Tensor:
        """The hidden states [B, T, D] before layer 1, from the inputs without the mask."""
        hidden: Tensor = self.model.embeddings(**inputs)
        return hidden

    def context(
        self, hidden: Tensor, tokens: int, mask: Tensor | None, inputs: Inputs
    ) -> EncoderContext:
        """What the layers need beside the hidden states, computed once per call.

        Args:
            hidden: has their dtype and device; its shape does not matter.
            tokens: T.
            mask: the attention mask [B, T], or None where it hides nothing.
            inputs: of the call.
        """
        implementation = self.model.config._attn_implementation
        return EncoderContext(attention_bias(mask, hidden, implementation), self._shown(mask))

    def _shown(self, mask: Tensor | None) -> Tensor | None:
        """Which tokens [B, T] count in a mean; None: all, or none is taken."""
        return mask != 0 if self.reads_mean and mask is not None else None

    @property
    def reads_mean(self) -> bool:
        """Whether an exit reads the mean over a row's tokens, and not the first."""
        return self._chosen_readout == "mean"

    def layer(self, index: int, hidden: Tensor, context: Any) -> Tensor:
        """The hidden states [B, T, D] after layer `index`, given those before it.

        Raises:
            IndexError: an index outside 1..depth.
        """
        try:
            module = self._layers[str(index - 1)]
        except KeyError:
            raise IndexError(f"index: got layer {index}; wanted 1 to {self.depth}") from None
        if hidden.shape[0] == 0:
            return hidden  # transformers' layers cannot split an empty batch into heads
        return self._run(module, hidden, context)

    def _run(self, module: nn.Module, hidden: Tensor, context: Any) -> Tensor:
        after: Tensor = module(hidden, context.mask)
        return after

    def readout(self, index: int, hidden: Tensor, context: Any) -> tuple[Tensor, Tensor | None]:
        """The first token of each row, or the mean [R, D] over its tokens; past the final norm."""
        norm = self.final_norm()
        if self.reads_mean:
            return mean_of_shown(hidden if norm is None else norm(hidden), context.shown), None
        return (hidden if norm is None else norm(hidden[:, 0])), None

    def final_norm(self) -> nn.Module | None:
        """The norm after the last layer, which every exit's vector passes."""
        return None


def selected(tensor: Tensor, rows: Tensor) -> Tensor:
    """Some rows of a tensor that has one per sample; one with a single row for all is itself."""
    return tensor if len(tensor) == 1 else tensor.index_select(0, rows)
