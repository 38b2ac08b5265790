"""Training of multi-exit models: objectives, and the loop behind `eefast train`."""

from eefast.labels import task_loss
from eefast.training.berxit import BERxiT
from eefast.training.eeic import eeic
from eefast.training.joint import ElasticBERT, Joint, fixed
from eefast.training.metrics import exit_accuracies, exit_correlations
from eefast.training.mue import MuE
from eefast.training.objectives import (
    Exits,
    Objective,
    beem,
    needs_scores,
    needs_shared_head,
    objective,
    register_objective,
    weighted,
)
from eefast.training.progress import TrainingProgress
from eefast.training.shallow_deep import ShallowDeep
from eefast.training.stages import Stage, stages
from eefast.training.two_stage import DeeBERT, FastBERT

__all__ = [
    "BERxiT",
    "DeeBERT",
    "ElasticBERT",
    "Exits",
    "FastBERT",
    "Joint",
    "MuE",
    "Objective",
    "ShallowDeep",
    "Stage",
    "TrainingProgress",
    "beem",
    "eeic",
    "exit_accuracies",
    "exit_correlations",
    "fixed",
    "needs_scores",
    "needs_shared_head",
    "objective",
    "register_objective",
    "stages",
    "task_loss",
    "weighted",
]
