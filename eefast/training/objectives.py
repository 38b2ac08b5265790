"""Training objectives of multi-exit models: one per paper, known by name.

An objective is called with what the model gave, a `MultiExitOutput` whose loss is not there yet,
and the labels; it returns the loss, a scalar. One of your own:

    @eefast.training.register_objective("first-exit")
    def first_exit(output, labels, *, temperature=1.0):
        return task_loss(output.exit_logits[0] / temperature, labels)

    eefast.attach_exits(model, objective="first-exit", objective_options={"temperature": 2.0})

An objective that has to remember something between steps is a class: made once per model with the
options, then called as above. What it may have beside, each only where it is needed:

- a first argument of `__init__`, which gets the model's `Exits`;
- parameters: a class that is an `nn.Module` belongs to the model, and its parameters are trained,
  saved and loaded with the model's. (Its tensors are parameters or buffers that are saved; others
  have no values after `from_pretrained`, which makes models without memory first.)
- `stages`, instead of the call: what is trained first, and what then (`eefast.training.stages`);
- `progress`, None at first: in training the part of it that is done (`TrainingProgress`);
- `steps`: in training the number of steps that are done (`TrainingProgress`);
- `gradient_factors(exit)`: two numbers by which the gradients are multiplied that reach the layer
  of an exit (1-based) from the exit's head, and from the layers above.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor

from eefast.labels import task_loss

if TYPE_CHECKING:
    from eefast.multi_exit import MultiExitOutput

Objective = Callable[["MultiExitOutput", Tensor], Tensor]
"""(output: exit_logits, L times [B, C], exit_scores, L times [B] or None; labels [B]) -> loss."""


@dataclass(frozen=True)
class Exits:
    """What an objective may know of the model that it trains.

    Args:
        layers: layers with an exit, 1-based, ascending; the last is the backbone's last.
        costs: relative cost of each layer of the backbone.
        num_classes: C; 1 for regression.
    """

    layers: tuple[int, ...]
    costs: tuple[float, ...]
    num_classes: int

    @property
    def count(self) -> int:
        """Number of exits, L."""
        return len(self.layers)


Made = TypeVar("Made", bound=Callable[..., Any])
_REGISTRY: dict[str, Callable[..., Any]] = {}


def register_objective(*names: str) -> Callable[[Made], Made]:
    """Decorator: makes a function or class known as an objective, see the module's docstring.

    Several names: papers that train alike.

    Raises:
        ValueError: another objective has one of the names.
    """

    def register(make: Made) -> Made:
        for name in names:
            known = _REGISTRY.get(name)
            # The same one again is a notebook cell run twice.
            if known is not None and known.__qualname__ != make.__qualname__:
                raise ValueError(
                    f"there is an objective named {name!r} already: {known.__qualname__}"
                )
        _REGISTRY.update(dict.fromkeys(names, make))
        return make

    return register


def objective(name: str, exits: Exits | None = None, /, **options: Any) -> Objective:
    """The objective of that name for a model with these exits, with its options.

    Raises:
        ValueError: there is none (the message lists those there are), or a bad option.
        TypeError: an option that it does not have, or no exits where it needs to know them.
    """
    if name not in _REGISTRY:
        raise ValueError(
            f"unknown objective {name!r}; there are {sorted(_REGISTRY)} (yours is known once "
            "it is registered: eefast.training.register_objective)"
        )
    make = _REGISTRY[name]
    parameters = inspect.signature(make).parameters.values()
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    unknown = sorted(options.keys() - set(known))
    if unknown:
        raise TypeError(f"objective {name!r} has no options {unknown}; there are {known}")
    if not inspect.isclass(make):
        return partial(make, **options)
    if not any(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters):
        return make(**options)  # type: ignore[return-value]
    if exits is None:
        raise TypeError(f"objective {name!r} is made for a model: objective({name!r}, Exits(...))")
    return make(exits, **options)  # type: ignore[call-arg,return-value]


def needs_scores(name: str) -> bool:
    """Whether the objective of that name trains a scorer, which the heads then need."""
    return getattr(_REGISTRY.get(name), "needs_scores", False)


def needs_shared_head(name: str) -> bool:
    """Whether the objective of that name trains one head for all exits."""
    return getattr(_REGISTRY.get(name), "needs_shared_head", False)


def needs_cascade(name: str) -> bool:
    """Whether the objective of that name trains heads that each read the one before."""
    return getattr(_REGISTRY.get(name), "needs_cascade", False)


def exit_logits_of(output: MultiExitOutput) -> Sequence[Tensor]:
    """Logits of every exit, L times [B, C]."""
    assert output.exit_logits is not None  # a model always gives them
    return output.exit_logits


def exit_scores_of(output: MultiExitOutput, name: str) -> Sequence[Tensor]:
    """Learned score of every exit, L times [B] float32, for the objective of that name.

    Raises:
        ValueError: the model's heads have no scorer.
    """
    if output.exit_scores is None:
        raise ValueError(
            f"objective {name!r} trains learned scores, and the model's heads have no scorer: "
            "eefast.attach_exits(..., scorer_row=True)"
        )
    return output.exit_scores


def depth_weighted(losses: Sequence[Tensor]) -> Tensor:
    """sum(i L_i) / sum(i)."""
    weights = range(1, len(losses) + 1)
    total = sum(weight * loss for weight, loss in zip(weights, losses, strict=True))
    assert isinstance(total, Tensor)
    return total / sum(weights)


@register_objective("weighted", "pabee", "pcee", "pcee-v1")
def weighted(
    output: MultiExitOutput,
    labels: Tensor,  # (B,)
) -> Tensor:
    """Depth-weighted task loss, sum(i L_i) / sum(i): PABEE (Zhou et al., 2020, Eq. 4).

    PCEE-BERT's too (Zhang et al., 2022, section 2.2.1), with entropy or confidence at inference.
    """
    return depth_weighted([task_loss(logits, labels) for logits in exit_logits_of(output)])


@register_objective("beem")
def beem(
    output: MultiExitOutput,
    labels: Tensor,  # (B,)
) -> Tensor:
    """BEEM (Eq. 1): L_i = CE(p_i, y) + KL(p_i, p_L), summed as sum(i L_i) / sum(i).

    KL(p_i, p_L) = sum_c p_i ln(p_i / p_L), as the paper writes it. The last exit is the teacher:
    no gradient flows into p_L through this term. With one output (C = 1) the distribution is
    constant and only the task loss remains.
    """
    exit_logits = exit_logits_of(output)
    teacher = exit_logits[-1].detach().float().log_softmax(-1)
    losses = []
    for logits in exit_logits:
        student = logits.float().log_softmax(-1)
        divergence = (student.exp() * (student - teacher)).sum(-1).mean()
        losses.append(task_loss(logits, labels) + divergence)
    return depth_weighted(losses)
