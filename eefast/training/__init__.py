"""Training of multi-exit models: objectives, and the loop behind `eefast train`."""

from eefast.labels import task_loss
from eefast.training.berxit import BERxiT
from eefast.training.eeic import eeic
from eefast.training.metrics import exit_accuracies
from eefast.training.objectives import (
    Exits,
    Objective,
    beem,
    needs_scores,
    objective,
    register_objective,
    weighted,
)
from eefast.training.progress import TrainingProgress
from eefast.training.stages import Stage, stages
from eefast.training.two_stage import DeeBERT, FastBERT

__all__ = [
    "BERxiT",
    "DeeBERT",
    "Exits",
    "FastBERT",
    "Objective",
    "Stage",
    "TrainingProgress",
    "beem",
    "eeic",
    "exit_accuracies",
    "needs_scores",
    "objective",
    "register_objective",
    "stages",
    "task_loss",
    "weighted",
]
