"""`MultiExitConfig`: what a `MultiExitModel` is made of, as its `config.json` holds it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import AutoConfig, PretrainedConfig

from eefast.heads import HeadKind
from eefast.training import needs_scores


class MultiExitConfig(PretrainedConfig):
    """Configuration of a `MultiExitModel`.

    Args:
        backbone_config: the transformers config of the backbone, or its dictionary.
        exits: 1-based layers after which an exit stands, ascending, ending with the last layer;
            None: after every layer.
        head: "linear" or "pooler" (see `eefast.heads.ExitHeads`).
        share_pooler: one pooler for all exits.
        head_dropout: dropout before the classifiers, in training.
        scorer_row: give the heads a learned score (see `eefast.heads.ExitHeads`); None: if the
            objective trains one.
        objective: name of the training objective, "beem", "weighted", "eeic", "berxit" or one of
            your own (see `eefast.training`).
        objective_options: its options by name.
        policies: stored policies by name, as `Policy.to_dict` describes them.
        anatomy: how a model without an adapter is walked (`Anatomy.to_dict`): found once, by
            `attach_exits`.
    """

    model_type = "eefast"
    sub_configs = {"backbone_config": AutoConfig}  # noqa: RUF012 (transformers' own protocol)
    # Trainer.evaluate then hands compute_metrics the last exit's logits, as any classifier's.
    # (The others are a compiled model's.)
    keys_to_ignore_at_inference = [  # noqa: RUF012
        "exit_logits",
        "exit_scores",
        "prediction",
        "exit_layer",
        "score",
    ]

    def __init__(
        self,
        backbone_config: PretrainedConfig | dict[str, Any] | None = None,
        exits: Sequence[int] | None = None,
        head: HeadKind = "linear",
        share_pooler: bool = False,
        head_dropout: float = 0.1,
        scorer_row: bool | None = None,
        objective: str = "beem",
        objective_options: dict[str, Any] | None = None,
        policies: dict[str, dict[str, Any]] | None = None,
        anatomy: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(backbone_config, dict):
            backbone_config = AutoConfig.for_model(**backbone_config)
        self.backbone_config = backbone_config
        self.exits = exits
        self.head = head
        self.share_pooler = share_pooler
        self.head_dropout = head_dropout
        self.scorer_row = needs_scores(objective) if scorer_row is None else scorer_row
        self.objective = objective
        self.objective_options = dict(objective_options or {})
        self.policies = dict(policies or {})
        self.anatomy = anatomy
        super().__init__(**kwargs)

    def to_dict(self) -> dict[str, Any]:
        """As any config's, without what `eefast.training.exit_accuracies` sets for Trainer."""
        described: dict[str, Any] = super().to_dict()
        described.pop("keys_to_ignore_at_inference", None)
        return described


AutoConfig.register(MultiExitConfig.model_type, MultiExitConfig, exist_ok=True)
