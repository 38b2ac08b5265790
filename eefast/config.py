"""`MultiExitConfig`: what a `MultiExitModel` is made of, as its `config.json` holds it."""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from transformers import AutoConfig, PretrainedConfig

from eefast.heads import HeadKind
from eefast.training import needs_scores, needs_shared_head


class MultiExitConfig(PretrainedConfig):
    """Configuration of a `MultiExitModel`.

    Args:
        backbone_config: the transformers config of the backbone, or its dictionary.
        exits: 1-based layers after which an exit stands, ascending, ending with the last layer;
            None: after every layer.
        head: "linear" or "pooler" (see `eefast.heads.ExitHeads`).
        share_pooler: one pooler for all exits.
        readout: what an exit reads of a text's tokens: "first" or "last" (that is not padding), or
            "mean"; None: what the family's own classifier reads.
        head_dropout: dropout before the classifiers, in training.
        scorer_row: give the heads a learned score (see `eefast.heads.ExitHeads`); None: if the
            objective trains one.
        share_head: one head for all exits; None: if the objective trains one.
        cascade: each head reads the logits of the one before (see `eefast.heads.ExitHeads`).
        objective: name of the training objective, a paper's or one of your own (see
            `eefast.training`).
        objective_options: its options by name.
        policies: stored policies by name, as `Policy.to_dict` describes them.
        anatomy: how a model without an adapter is walked (`Anatomy.to_dict`): found once, by
            `attach_exits`.
        **kwargs: as for any transformers config: id2label, num_labels, attn_implementation, ...

    Raises:
        ValueError: values of another kind than these, which name themselves.
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
        readout: str | None = None,
        head_dropout: float = 0.1,
        scorer_row: bool | None = None,
        share_head: bool | None = None,
        cascade: bool = False,
        objective: str = "beem",
        objective_options: dict[str, Any] | None = None,
        policies: dict[str, dict[str, Any]] | None = None,
        anatomy: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        check_attention(kwargs.get("attn_implementation"))
        check_classes(kwargs.get("id2label"), kwargs.get("num_labels"))
        for what, value in (
            ("objective_options", objective_options),
            ("policies", policies),
            ("anatomy", anatomy),
            *((f"policies[{name!r}]", policy) for name, policy in _items(policies)),
        ):
            if not isinstance(value, Mapping | None):
                raise ValueError(f"{what} must be a dictionary, got {reprlib.repr(value)}")
        if isinstance(head_dropout, bool | str) or not (
            hasattr(head_dropout, "__float__") and 0 <= head_dropout < 1
        ):
            raise ValueError(f"head_dropout must be a number in [0, 1), got {head_dropout!r}")
        if isinstance(backbone_config, dict) and isinstance(backbone_config.get("model_type"), str):
            check_attention(backbone_config.get("attn_implementation"))
            backbone_config = AutoConfig.for_model(**backbone_config)
        if not isinstance(backbone_config, PretrainedConfig | None):
            raise ValueError(
                "backbone_config must be a transformers config, or its dictionary with a "
                f"model_type; got {reprlib.repr(backbone_config)}"
            )
        self.backbone_config = backbone_config
        self.exits = exits
        self.head = head
        self.share_pooler = share_pooler
        self.readout = readout
        self.head_dropout = head_dropout
        self.scorer_row = needs_scores(objective) if scorer_row is None else scorer_row
        self.share_head = needs_shared_head(objective) if share_head is None else share_head
        self.cascade = cascade
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


def check_attention(implementation: Any) -> None:
    """Refuse attention that the layers cannot be given masks for; None is the default.

    transformers takes other names for kernels, and downloads and runs those with a "/".

    Raises:
        ValueError: neither "eager" nor "sdpa"; of a dictionary, its values.
    """
    asked = implementation.values() if isinstance(implementation, dict) else [implementation]
    if not all(name in (None, "eager", "sdpa") for name in asked):
        raise ValueError(
            f"attn_implementation must be 'eager' or 'sdpa', got {reprlib.repr(implementation)}"
        )


def check_classes(id2label: Any, num_labels: Any = None) -> None:
    """Refuse what does not name the classes 0, 1, ..., or is no number of classes.

    Raises:
        ValueError: names that are no dictionary, none, or with gaps; a number that is not whole or
            below 1.
    """
    if num_labels is not None:
        try:
            number = 0 if isinstance(num_labels, bool) else operator.index(num_labels)
        except TypeError:
            number = 0
        if number < 1:
            raise ValueError(f"num_labels must be 1 or more, got {num_labels!r}")
    if id2label is not None:
        try:
            numbers = sorted(int(number) for number, _ in id2label.items())
        except (AttributeError, TypeError, ValueError):
            numbers = []
        if not numbers or numbers != list(range(len(numbers))):
            raise ValueError(
                "id2label must name the classes 0, 1, 2, ... without a gap, got "
                f"{reprlib.repr(id2label)}"
            )


def _items(policies: Any) -> Iterable[tuple[Any, Any]]:
    return policies.items() if isinstance(policies, Mapping) else ()


AutoConfig.register(MultiExitConfig.model_type, MultiExitConfig, exist_ok=True)
