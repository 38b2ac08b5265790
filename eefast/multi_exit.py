"""`MultiExitModel`: a transformers model with an exit head after some or all of its layers."""

from __future__ import annotations

import copy
import json
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.utils import CONFIG_NAME
from transformers.utils.hub import cached_file

from eefast.backbones import (
    Anatomy,
    Inputs,
    backbone_for,
    gathered,
    has_adapter,
    study,
)
from eefast.config import MultiExitConfig, check_attention
from eefast.files import whole
from eefast.forward import over_inputs
from eefast.heads import ExitHeads
from eefast.labels import check_labels
from eefast.policies import Policy, policy_from_dict
from eefast.policies.files import POLICY_TENSORS, load_policy_tensors, save_policy_tensors
from eefast.short_repr import ShortRepr
from eefast.training import Exits, Stage, objective
from eefast.training.gradients import scaled_gradient
from eefast.training.stages import loss_of


@dataclass(repr=False)
class MultiExitOutput(ShortRepr):
    """Output of a `MultiExitModel`: `logits` are the last exit's, as any classifier's."""

    loss: Tensor | None = None  # scalar, if labels were given
    logits: Tensor | None = None  # (B, C): the last exit's
    exit_logits: tuple[Tensor, ...] | None = None  # L times (B, C), first exit first
    exit_scores: tuple[Tensor, ...] | None = None  # L times (B,) float32, if heads have a scorer


class MultiExitModel(PreTrainedModel):
    """A backbone with exit heads, always run at full depth: for training and for recording.

    Made by `attach_exits` or `from_pretrained`; made fast by `eefast.compile`. (transformers' own
    `AutoModelForSequenceClassification.from_pretrained` loads one after `import eefast`.)

    With `labels` (integers [B] in [0, C), or numbers if C = 1) the output carries the loss of
    `config.objective`, so that `transformers.Trainer` trains it as it is; objectives of several
    stages in a loop over `eefast.training.stages(model)`. (Trainer's label
    smoothing and its `compute_loss_func` replace the objective by a loss of the last exit: do not
    use them.)
    """

    config_class = MultiExitConfig
    base_model_prefix = "backbone"
    main_input_name = "input_ids"
    _supports_sdpa = True
    _supports_attention_backend = True
    supports_gradient_checkpointing = True

    def __init__(self, config: MultiExitConfig, backbone: PreTrainedModel | None = None) -> None:
        if config.backbone_config is None:
            raise ValueError("config.backbone_config must be a transformers config, got None")
        check_attention(config._attn_implementation)
        super().__init__(config)
        if backbone is None:
            backbone = AutoModel.from_config(config.backbone_config)
        else:
            _keep_values(backbone)
        if config.anatomy is None and not has_adapter(backbone):
            config.anatomy = study(backbone).to_dict()
        self.backbone = _without_pooler(backbone, (config.anatomy or {}).get("norm", ""))
        config.backbone_config = self.backbone.config  # one object: what changes it is saved
        anatomy = None if config.anatomy is None else Anatomy.from_dict(config.anatomy)
        self.layers = backbone_for(self.backbone, anatomy, config.readout)
        self.main_input_name = backbone.main_input_name
        config.exits = _checked_exits(config.exits, self.layers.depth)
        self.heads = ExitHeads(
            config.head,
            [self.layers.widths[layer - 1] for layer in config.exits],
            self.num_classes,
            config.share_pooler,
            config.head_dropout,
            config.scorer_row,
            config.share_head,
            config.cascade,
        )
        known = Exits(tuple(config.exits), self.layers.costs, self.num_classes)
        self.objective = objective(config.objective, known, **config.objective_options)
        if isinstance(self.objective, nn.Module):
            _keep_values(self.objective)
        self.stage: Stage | None = None  # set by eefast.training.stages
        self._policy_tensors: dict[str, dict[str, Tensor]] = {}  # by name of the policy
        self.post_init()  # type: ignore[no-untyped-call]

    @property
    def num_exits(self) -> int:
        """Number of exits, L of the recurrence."""
        return len(self.config.exits)

    @property
    def num_classes(self) -> int:
        """Number of classes, C; 1 for regression."""
        return int(self.config.num_labels or 0)

    @property
    def has_similarity(self) -> bool:
        """Whether it can exit by similarity: an exit after every layer, and one head for all."""
        return bool(self.config.share_head) and self.num_exits == self.layers.depth

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> Any:
        """As for any transformers model: the backbone is resized, and its config says so."""
        return self.backbone.resize_token_embeddings(*args, **kwargs)

    def set_attn_implementation(self, attn_implementation: Any, *args: Any, **kwargs: Any) -> None:
        """As for any transformers model.

        Raises:
            ValueError: neither "eager" nor "sdpa".
        """
        check_attention(attn_implementation)
        super().set_attn_implementation(attn_implementation, *args, **kwargs)

    def set_policy(self, policy: Policy) -> None:
        """Store a policy under its name; `save_pretrained` keeps it, `compile` finds it.

        Raises:
            ValueError: it was calibrated for another number of exits or classes.
        """
        if not isinstance(policy, Policy):
            raise TypeError(f"policy must be a Policy, got {policy!r}")
        policy.check(
            self.num_exits,
            self.num_classes,
            learned_scores=self.heads.scorer is not None,
            similarity=self.has_similarity,
        )
        self.config.policies[policy.name] = policy.to_dict()
        self._policy_tensors[policy.name] = {
            field: tensor.detach().clone() for field, tensor in policy.tensors().items()
        }

    def get_policy(self, name: str) -> Policy | None:
        """The stored policy of that name, or None."""
        description = self.config.policies.get(name)
        if description is None:
            return None
        return policy_from_dict(description, self._policy_tensors.get(name))

    @property
    def input_names(self) -> tuple[str, ...]:
        """What the model's own forward takes, without labels."""
        return tuple(self.layers.takes)

    @over_inputs
    def forward(
        self,
        inputs: Inputs,
        labels: Tensor | None,  # (B,)
        return_dict: bool | None,
    ) -> MultiExitOutput | tuple[Any, ...]:
        """Run all layers and all exits.

        Takes what the base model's own forward takes, and `labels` and `return_dict`.

        Raises:
            TypeError: an input that the model's forward does not have.
            ValueError: inputs that the backbone cannot take, or labels that do not belong to them.
        """
        samples, _ = self.layers.check(inputs)
        if labels is not None:
            check_labels(labels, self.num_classes, samples)
        try:
            hidden, context = self.layers.start(inputs)
        except (IndexError, RuntimeError):
            self.layers.check_ids(inputs)
            raise
        factors = getattr(self.objective, "gradient_factors", lambda exit: (1, 1))
        logits: list[Tensor] = []
        scores: list[Tensor] = []
        for layer in range(1, self.layers.depth + 1):
            hidden = self.layers.layer(layer, hidden, context)
            if layer in self.config.exits:
                exit = len(logits) + 1
                from_head, from_above = factors(exit)
                read = scaled_gradient(hidden, from_head)
                hidden = scaled_gradient(hidden, from_above)
                vectors = gathered(*self.layers.readout(layer, read, context))
                exit_logits, score = self.heads(exit, vectors, logits[-1] if logits else None)
                logits.append(exit_logits)
                if score is not None:
                    scores.append(score)
        output = MultiExitOutput(
            logits=logits[-1], exit_logits=tuple(logits), exit_scores=tuple(scores) or None
        )
        if labels is not None:
            output = replace(output, loss=loss_of(self, output, labels))
        if return_dict is None:
            return_dict = self.config.return_dict
        return output if return_dict else output.to_tuple()

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
        """As for any transformers model; the tensors of stored policies lie beside the weights."""
        super().save_pretrained(save_directory, *args, **kwargs)
        save_policy_tensors(save_directory, self._policy_tensors)

    def save_policies(self, folder: str | Path) -> None:
        """Store the policies, and nothing else, in a folder that this model was saved to.

        The folder has all that it had or all of these, unless the interruption falls between the
        two last steps, in which files take their names.

        Raises:
            ValueError: the folder holds no `MultiExitModel` with these exits.
            OSError: there is no such folder, or it cannot be written to; it is as it was.
        """
        path = Path(folder) / CONFIG_NAME
        saved = json.loads(path.read_text())
        has = saved.get("model_type"), saved.get("exits")
        wanted = MultiExitConfig.model_type, self.config.exits
        if has != wanted:
            raise ValueError(f"{folder}: holds a model of type and exits {has}; wanted {wanted}")
        saved["policies"] = self.config.policies
        with whole(path) as new:
            new.write_text(json.dumps(saved, indent=2, sort_keys=True) + "\n")
            save_policy_tensors(folder, self._policy_tensors)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any
    ) -> Any:
        """Load a saved `MultiExitModel`; arguments as for any transformers model.

        Raises:
            ValueError: a checkpoint of something else, a damaged one, or one that lacks weights
                (nothing is filled in at random).
            OSError: there is no checkpoint.
        """
        path = pretrained_model_name_or_path
        if kwargs.get("weights_only") is False:
            raise ValueError("weights_only=False would run code from the checkpoint; remove it")
        if not Path(path).exists():  # then it must be a name on the hub
            try:
                validate_repo_id(str(path))
            except HFValidationError:
                raise FileNotFoundError(f"no model folder {path}") from None
        if kwargs.get("config") is None:
            where = {k: v for k, v in kwargs.items() if k in _WHERE}
            try:
                found = PretrainedConfig.get_config_dict(path, **where)[0].get("model_type")
            except (AttributeError, TypeError):
                raise ValueError(f"{path}: its {CONFIG_NAME} must hold an object") from None
            if found != MultiExitConfig.model_type:
                raise ValueError(
                    f"{path} is a checkpoint of model type {found!r}, not a MultiExitModel: load "
                    "it with transformers and give it exits with eefast.attach_exits"
                )
        return_info = kwargs.pop("output_loading_info", False)
        try:
            loaded: Any = super().from_pretrained(
                path, *model_args, output_loading_info=True, **kwargs
            )
        except SafetensorError as error:
            raise ValueError(f"the weights in {path} are damaged: {error}") from error
        model, info = loaded
        where = {k: v for k, v in kwargs.items() if k in _WHERE}
        where["_raise_exceptions_for_missing_entries"] = False
        tensors = cached_file(path, POLICY_TENSORS, **where)
        if tensors is not None:
            model._policy_tensors = load_policy_tensors(tensors)
        wrong = {k: sorted(map(str, info[k])) for k in _MUST_BE_EMPTY}
        if any(wrong.values()):
            raise ValueError(f"the weights in {path} do not fit the model: {wrong}")
        return (model, info) if return_info else model


_WHERE = {"cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token"}
_MUST_BE_EMPTY = ("missing_keys", "mismatched_keys", "unexpected_keys")


def _keep_values(part: nn.Module) -> None:
    """Mark modules as initialised: `post_init` would do it again, with values of its own."""
    for module in part.modules():
        module._is_hf_initialized = True  # type: ignore[assignment]


def _without_pooler(backbone: PreTrainedModel, norm: str) -> PreTrainedModel:
    # Exits have their own poolers. The caller's model keeps its pooler: it is removed from a copy
    # of the outermost module, which shares all weights. (A mean over pixels may stay, and a final
    # norm.)
    pooler = getattr(backbone, "pooler", None)
    if pooler is None or not list(pooler.parameters()) or norm.startswith("pooler."):
        return backbone
    bare = copy.copy(backbone)
    bare._modules = dict(backbone._modules)
    bare._modules["pooler"] = None
    return bare


def _checked_exits(exits: Sequence[int] | None, num_layers: int) -> list[int]:
    try:
        layers = [operator.index(i) for i in (range(1, num_layers + 1) if exits is None else exits)]
    except TypeError:
        raise ValueError(f"exits must be whole numbers, the layers; got {exits}") from None
    if layers != sorted(set(layers)) or not layers or layers[0] < 1 or layers[-1] != num_layers:
        raise ValueError(
            f"exits must be layers in ascending order, from 1 up, ending with the last layer "
            f"({num_layers}); got {layers}"
        )
    return layers


for auto_class in (
    AutoModelForAudioClassification,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
):
    auto_class.register(MultiExitConfig, MultiExitModel, exist_ok=True)
