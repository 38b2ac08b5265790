"""Training of multi-exit models: objectives, and the loop behind `eefast train`."""

from eefast.labels import task_loss
from eefast.training.berxit import BERxiT
from eefast.training.eeic import eeic
from eefast.training.metrics import exit_accuracies
from eefast.training.mue import MuE
from eefast.training.objectives import (
    Objective,
    beem,
    needs_scores,
    needs_shared_head,
    objective,
    register_objective,
    weighted,
)

__all__ = [
    "BERxiT",
    "MuE",
    "Objective",
    "beem",
    "eeic",
    "exit_accuracies",
    "needs_scores",
    "needs_shared_head",
    "objective",
    "register_objective",
    "task_loss",
    "weighted",
]
