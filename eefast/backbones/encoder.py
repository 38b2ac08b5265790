"""`EncoderBackbone`: what the families of BERT's plan have in common."""

from __future__ import annotations

import abc
from collections.abc import Mapping

from torch import Tensor, nn
from transformers import PreTrainedModel

from eefast.backbones.base import Backbone, LayerInputs


class EncoderBackbone(Backbone):
    """An `embeddings` module, then one module per layer, each called with hidden states and mask.

    Layers are called as modules, never through their `forward` or their parts: gradient
    checkpointing, sharding, off-loading and users' hooks live in the call. Of its arguments only
    these two mean anything to an encoder; leaving the others out keeps them from travelling through
    four levels of keyword arguments.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        self._layers = self._stack()
        self.num_layers = len(self._layers)

    @abc.abstractmethod
    def _stack(self) -> Mapping[str, nn.Module]:
        """The modules of layers 1, 2, ... under "0", "1", ..., as an nn.ModuleList keeps them.

        That is the list's own `_modules` where there is a list: looking a layer up costs a tenth of
        indexing the list, and one that was replaced since (wrapped by FSDP, say) is seen.
        """

    def _embed(
        self,
        input_ids: Tensor | None,
        token_type_ids: Tensor | None,
        position_ids: Tensor | None,
        inputs_embeds: Tensor | None,
    ) -> Tensor:
        hidden: Tensor = self.model.embeddings(
            input_ids=input_ids,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
        )
        return hidden

    def layer(self, index: int, hidden: Tensor, inputs: LayerInputs) -> Tensor:
        """The hidden states [B, T, D] after layer `index`, given those before it.

        Raises:
            IndexError: an index outside 1..num_layers.
        """
        try:
            module = self._layers[str(index - 1)]
        except KeyError:
            raise IndexError(f"index: got layer {index}; wanted 1 to {self.num_layers}") from None
        if hidden.shape[0] == 0:
            return hidden  # transformers' layers cannot split nothing into heads
        return self._run(module, hidden, inputs)

    def _run(self, module: nn.Module, hidden: Tensor, inputs: LayerInputs) -> Tensor:
        after: Tensor = module(hidden, inputs.mask)
        return after
