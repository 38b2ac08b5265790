"""Training of multi-exit models: objectives, and the loop behind `eefast train`."""

from eefast.labels import task_loss
from eefast.training.berxit import BERxiT
from eefast.training.eeic import eeic
from eefast.training.metrics import exit_accuracies, exit_correlations
from eefast.training.objectives import (
    Objective,
    beem,
    needs_scores,
    objective,
    register_objective,
    weighted,
)

__all__ = [
    "BERxiT",
    "Objective",
    "beem",
    "eeic",
    "exit_accuracies",
    "exit_correlations",
    "needs_scores",
    "objective",
    "register_objective",
    "task_loss",
    "weighted",
]
