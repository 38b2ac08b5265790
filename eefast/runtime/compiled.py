"""`CompiledModel`: a multi-exit model with its policy, called like any classifier."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, PreTrainedModel

from eefast.backbones import Backbone, Inputs
from eefast.backbones.families import EncoderBackbone
from eefast.config import MultiExitConfig
from eefast.forward import over_inputs
from eefast.labels import check_labels, task_loss
from eefast.lowering import NotLowered, PackedBackbone, PackedLayers
from eefast.multi_exit import MultiExitModel
from eefast.ops import Impl, ScorerKind, implementation
from eefast.policies import Policy
from eefast.runtime.modes import modes
from eefast.runtime.output import EarlyExitOutput
from eefast.runtime.plan import Plan
from eefast.runtime.protocol import Runtime
from eefast.runtime.registry import RUNTIMES, RuntimeName, runtime_for
from eefast.runtime.stats import RuntimeStats


class CompiledModel(PreTrainedModel):
    """A `MultiExitModel` that stops for each sample where its policy says so.

    Made by `eefast.compile`. It is a transformers model (pipelines take it) for inference only.
    Several threads may call one compiled model. `fast.policy = ...` takes effect on the next
    call, and so does a number written into `fast.policy_table`. Weights may be changed in place;
    after replacing modules or parameters of `fast.model`, assign `fast.policy` again.

    `fast.stats = RuntimeStats()` counts every call from then on (layers run and wasted, exit
    steps, waits of the host, evictions); `None`, as at first, has none counted and costs nothing.
    """

    config_class = MultiExitConfig
    main_input_name = "input_ids"
    _supports_sdpa = True
    _supports_attention_backend = True

    def __init__(
        self,
        model: MultiExitModel,
        policy: Policy,
        runtime: RuntimeName,
        impl: Impl,
        options: Mapping[str, Any],
        layers: PackedLayers | NotLowered,
    ) -> None:
        super().__init__(model.config)
        self.model = model
        self.impl = impl
        self._layers = layers
        self._asked = runtime, dict(options)
        self._runtime = self._new_runtime()
        self.policy = policy
        self.stats = None
        # Looked up once: attributes of modules and configs go through Python code.
        self.input_names = model.input_names
        self._return_dict = model.config.return_dict
        self.train(False)

    @property
    def stats(self) -> RuntimeStats | None:
        """Where calls are counted; None: nowhere."""
        return self._stats

    @stats.setter
    def stats(self, stats: RuntimeStats | None) -> None:
        if not isinstance(stats, RuntimeStats | None):
            raise TypeError(f"stats must be a RuntimeStats or None, got {stats!r}")
        self._stats = stats

    @property
    def policy(self) -> Policy:
        """The policy in force. Assigning one takes effect on the next call."""
        return self._plan.policy

    @policy.setter
    def policy(self, policy: Policy) -> None:
        if not isinstance(policy, Policy):
            raise TypeError(f"policy must be a Policy, got {policy!r}")
        self._take(policy)

    @property
    def lowering(self) -> str:
        """What runs the layers, in one line: packed ones, or the model's own and why."""
        layers = self._layers
        return f"not lowered: {layers.why}" if isinstance(layers, NotLowered) else str(layers)

    @property
    def backbone(self) -> Backbone:
        """What the runtime drives."""
        own: Backbone = self.model.layers
        layers = self._layers
        if isinstance(layers, NotLowered):
            return own
        assert isinstance(own, EncoderBackbone)  # programs are written for these
        return PackedBackbone(own, layers)

    @property
    def policy_table(self) -> Tensor:
        """Weight, threshold and tau of each exit up to the last one used, [L, 3] float32.

        The live table: what is written into it holds from the next call on, until `policy` is
        assigned again. `policy` keeps describing what the table was made from.

        Each call begins with a copy of the table and decides by it to its end. If other threads
        call meanwhile, one of them may begin in the middle of a write of several numbers; assigning
        `policy` replaces them all at once.
        """
        return self._plan.table

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.config.backbone_config.model_type}, "
            f"exits={self.config.exits}, policy={self.policy.name!r}, runtime={self.runtime!r}, "
            f"impl={self.impl!r})"
        )

    @over_inputs
    def forward(
        self,
        inputs: Inputs,
        labels: Tensor | None,  # (B,)
        return_dict: bool | None,
    ) -> EarlyExitOutput | tuple[Any, ...]:
        """Classify a batch; each sample exits by itself.

        Takes what the base model's own forward takes, and `labels` and `return_dict`.

        Raises:
            TypeError: an input that the model's forward does not have.
            ValueError: inputs that the backbone cannot take, or labels that do not belong to them.
            RuntimeError: the model behind it, or a part of it, was put back into training mode.
        """
        # Under torch.compile the call runs as without it: its decisions are not for a tracer.
        call = _untraced if torch.compiler.is_compiling() else CompiledModel._call
        return call(self, inputs, labels, return_dict)

    @torch.inference_mode()
    def _call(
        self, inputs: Inputs, labels: Tensor | None, return_dict: bool | None
    ) -> EarlyExitOutput | tuple[Any, ...]:
        if labels is not None:
            check_labels(labels, self.model.num_classes, self.model.layers.check(inputs)[0])
        self._must_not_train()
        if self._copied is not None and self._copied != _versions(self.model.heads):
            self._renew_plan()
        state = self._runtime.run(self._plan, inputs, self._stats)
        loss = None if labels is None else task_loss(state.logits, labels)
        output = EarlyExitOutput.of(state, loss)
        if return_dict is None:
            return_dict = self._return_dict
        return output if return_dict else output.to_tuple()

    def _must_not_train(self) -> None:
        if any(map(_IS_TRAINING, self._modes)):
            raise RuntimeError(
                "the model or a part of it is in training mode, with dropout; call model.eval()"
            )

    @torch.inference_mode()
    def warm_up(self, shapes: Iterable[tuple[int, int] | Mapping[str, Tensor]]) -> None:
        """Do the extra work of first calls now: compile kernels, capture graphs.

        One call per shape; it is not counted in `stats`. With runtime "graph" that captures the
        whole model, whatever the policy; others run until the policy stops.

        Args:
            shapes: of calls to come: (samples, tokens), called with `input_ids` that are padding,
                or the inputs of a call by name, for models without tokens too.

        Raises:
            TypeError: shapes that are neither, or pairs where the model takes no `input_ids`.
            ValueError, RuntimeError: as the call would.
        """
        self._must_not_train()
        if not isinstance(shapes, Iterable):
            raise TypeError(f"shapes must be a list of shapes, got {shapes!r}")
        for shape in shapes:
            inputs = dict(shape) if isinstance(shape, Mapping) else self._padding_only(shape)
            self._runtime.run(self._plan, inputs)

    def _padding_only(self, shape: tuple[int, int]) -> Inputs:
        try:
            samples, tokens = map(operator.index, shape)
        except (TypeError, ValueError):
            raise TypeError(
                f"shapes must be pairs (samples, tokens) or inputs by name, got {shape!r}"
            ) from None
        if samples < 1:
            raise ValueError(f"shapes must have 1 sample or more, got {shape!r}")
        try:
            inputs: Inputs = self.model.layers.padding_only(samples, tokens)
        except TypeError as error:
            raise TypeError(f"shapes: {error}, so give inputs; got {shape!r}") from None
        return inputs

    def train(self, mode: bool = True) -> CompiledModel:
        """Only `train(False)`, which is `eval()`: a compiled model is for inference.

        Raises:
            RuntimeError: asked for training mode.
        """
        if mode:
            raise RuntimeError("a compiled model is for inference: train the MultiExitModel")
        super().train(False)
        return self

    def save_pretrained(self, *args: Any, **kwargs: Any) -> Any:
        """Save the multi-exit model behind it, with the stored policies.

        Raises:
            RuntimeError: its layers are packed, and it has their weights in no other form.
        """
        if isinstance(self._layers, PackedLayers):
            raise RuntimeError(
                "the layers are packed for inference: save the MultiExitModel that was compiled"
            )
        return self.model.save_pretrained(*args, **kwargs)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Not for compiled models.

        Raises:
            TypeError: always; load a MultiExitModel and compile that.
        """
        raise TypeError("load MultiExitModel.from_pretrained(...) and call eefast.compile on it")

    def set_attn_implementation(self, attn_implementation: Any, *args: Any, **kwargs: Any) -> None:
        """As of the `MultiExitModel` behind it."""
        self.model.set_attn_implementation(attn_implementation, *args, **kwargs)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> CompiledModel:
        # to(), half() and their like make new weights; the plan holds the old ones, and the runtime
        # was made for the old device and precision. What does not fit is refused before that.
        moved = fn(torch.empty(0, dtype=self.dtype, device=self.device))
        if isinstance(self._layers, PackedLayers):
            if (moved.device, moved.dtype) != (self.device, self.dtype):
                raise RuntimeError(
                    f"the layers are packed ({self.lowering}): to move to {moved.device}, "
                    f"{moved.dtype}, compile the MultiExitModel again"
                )
            return self
        runtime_for(self._asked[0], moved.device, self._asked[1])
        implementation(self.impl, moved.device, moved.dtype, classes=self.model.num_classes)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._runtime.close()
        self._runtime = self._new_runtime()
        self._renew_plan()
        return self

    def _renew_plan(self) -> None:
        """The plan of the weights as they are now, with the live table as it is."""
        self._take(self.policy, self.policy_table)

    def _take(self, policy: Policy, table: Tensor | None = None) -> None:
        exits, heads = self.config.exits, self.model.heads
        scorer_row = policy.scorer is ScorerKind.ROW
        plan = Plan.make(
            policy,
            exits,
            [heads.weights(exit, scorer_row) for exit in range(1, len(exits) + 1)],
            self.model.num_classes,
            self.model.device,
        )
        if plan.by_similarity:
            model = self.model
            implementation(self.impl, model.device, model.dtype, op="similarity_step")
            policy.check(model.num_exits, model.num_classes, similarity=model.has_similarity)
        if table is not None:
            plan.table.copy_(table)
        if isinstance(self._layers, PackedLayers):
            self._runtime = self._new_runtime()  # with the embeddings that the model has now
        self._plan = plan  # complete: another thread may call from now on
        self._modes = modes(self.model.backbone)
        # A scorer that is a row of the classifier, and a cascade in low precision, make the plan's
        # heads copies of parameters.
        self._copied = _versions(heads) if scorer_row or self.config.cascade else None

    def _new_runtime(self) -> Runtime:
        runtime, options = self._asked
        self.runtime = runtime_for(runtime, self.model.device, options)
        return RUNTIMES[self.runtime](self.backbone, self.model.num_classes, self.impl, **options)

    def __reduce__(self) -> Any:
        # Copies and pickles are compiled anew: kernels are not data, and the copy's plan must
        # hold the weights of the copy.
        runtime, options = self._asked
        made_of = self.model, self.policy, runtime, self.impl, options, self._layers
        return CompiledModel, made_of, self.policy_table

    def __setstate__(self, table: Tensor) -> None:
        self.policy_table.copy_(table)


_untraced = torch.compiler.disable(
    CompiledModel._call,
    reason="an eefast.CompiledModel is compiled already: torch.compile leaves it as it is",
)
_IS_TRAINING = operator.itemgetter("training")


def _versions(heads: nn.Module) -> list[int]:
    """How often each parameter was changed in place."""
    return [p._version for p in heads.parameters() if not p.is_inference()]


# Pipelines look a model's class up by name among those registered for its task.
MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.register(
    MultiExitConfig, (MultiExitModel, CompiledModel), exist_ok=True
)
