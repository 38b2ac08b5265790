"""Stages of a training: what is learned first, and what after it, with the rest as it is.

    for stage in eefast.training.stages(model):
        Trainer(model, ...).train()

Most objectives have one stage, in which everything is trained; then the loop runs once. An
objective that has several is a class whose attribute `stages` lists them:

    @register_objective("heads-last")
    class HeadsLast:
        stages = (
            Stage("backbone", last_exit, of_backbone_and_last_exit),
            Stage("exits", other_exits, of_other_exits),
        )
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from eefast.training.progress import set_progress

if TYPE_CHECKING:
    from eefast.multi_exit import MultiExitOutput
    from eefast.training.objectives import Objective


def of_everything(model: Any) -> Iterable[nn.Parameter]:
    """All parameters of a multi-exit model, the objective's own among them."""
    parameters: Iterable[nn.Parameter] = model.parameters()
    return parameters


def of_backbone_and_last_exit(model: Any) -> Iterable[nn.Parameter]:
    """Parameters of the model as it was before it had other exits."""
    return [*model.backbone.parameters(), *model.heads.parameters_of(model.num_exits)]


def of_other_exits(model: Any) -> Iterable[nn.Parameter]:
    """Parameters of all heads, but those of the last exit, with what it shares with others."""
    last = {id(parameter) for parameter in model.heads.parameters_of(model.num_exits)}
    return [parameter for parameter in model.heads.parameters() if id(parameter) not in last]


@dataclass(frozen=True)
class Stage:
    """A part of a training.

    Args:
        name: in messages.
        loss: as an objective's.
        trains: the parameters of the model that learn; the others are frozen meanwhile.
    """

    name: str
    loss: Objective
    trains: Callable[[Any], Iterable[nn.Parameter]] = of_everything


def stages_of(model: Any) -> Sequence[Stage]:
    """The stages of the objective of a multi-exit model."""
    own: Sequence[Stage] | None = getattr(model.objective, "stages", None)
    return (Stage("training", model.objective),) if own is None else own


def stages(model: Any) -> Generator[Stage, None, None]:
    """The stages of the training of a multi-exit model, one after the other.

    While a stage is current the model's loss is the stage's, and only the stage's parameters have
    `requires_grad`. (One that had not before does not get it.) Make a new Trainer for each: an
    optimiser takes the parameters that train when it is made. Afterwards, and when the loop is
    left early, everything is as before.

    Raises:
        TypeError: not a multi-exit model.
        ValueError: a stage with nothing to train, or a stage of the model is current already.
    """
    if not hasattr(model, "heads"):
        raise TypeError(f"model must be a MultiExitModel, got {type(model).__name__}")
    if model.stage is not None:
        raise ValueError(f"stage {model.stage.name!r} of the model is current: leave it first")
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for stage in stages_of(model):
            chosen = {id(parameter) for parameter in stage.trains(model)}
            if not any(id(parameter) in chosen for parameter in trainable):
                raise ValueError(
                    f"stage {stage.name!r} of objective {model.config.objective!r} has nothing to "
                    "train: all its parameters are frozen, or the last exit's too"
                )
            for parameter in trainable:
                parameter.requires_grad_(id(parameter) in chosen)
            model.stage = stage
            yield stage
    finally:
        model.stage = None
        set_progress(model, None)  # which an interruption leaves somewhere
        for parameter in trainable:
            parameter.requires_grad_(True)


def loss_of(model: Any, output: MultiExitOutput, labels: Tensor) -> Tensor:
    """The loss of the current stage; outside of stages that of the objective.

    An objective of several stages cannot be trained outside of them; in evaluation mode its loss
    is then the sum of theirs.

    Raises:
        ValueError: a model in training mode whose objective has several stages, none of them
            current, or is not told the progress that it asks for.
    """
    current = stages_of(model) if model.stage is None else (model.stage,)
    if len(current) > 1 and model.training:
        names = ", ".join(repr(stage.name) for stage in current)
        raise ValueError(
            f"objective {model.config.objective!r} has {len(current)} stages ({names}), and none "
            "is current: for stage in eefast.training.stages(model): Trainer(model, ...).train()"
        )
    if model.training and getattr(model.objective, "progress", 0.0) is None:
        raise ValueError(
            f"objective {model.config.objective!r} changes as training goes on, and is not told: "
            "Trainer(model, ..., callbacks=[eefast.training.TrainingProgress()])"
        )
    first, *others = (stage.loss(output, labels) for stage in current)
    return sum(others, start=first)
