"""Training of multi-exit models: objectives, and the loop behind `eefast train`."""

from eefast.labels import task_loss
from eefast.training.berxit import BERxiT
from eefast.training.eeic import eeic
from eefast.training.jei_dnn import JEIDNN
from eefast.training.joint import ElasticBERT, Joint, fixed
from eefast.training.leebert import LeeBERT
from eefast.training.metrics import exit_accuracies, exit_correlations
from eefast.training.mue import MuE
from eefast.training.objectives import (
    Exits,
    Objective,
    beem,
    needs_cascade,
    needs_scores,
    needs_shared_head,
    objective,
    register_objective,
    weighted,
)
from eefast.training.palbert import PALBERT
from eefast.training.pcee import PCEEv2
from eefast.training.progress import TrainingProgress
from eefast.training.shallow_deep import ShallowDeep
from eefast.training.stages import Stage, stages
from eefast.training.two_stage import DeeBERT, FastBERT
from eefast.training.ztw import ZTW

__all__ = [
    "JEIDNN",
    "PALBERT",
    "ZTW",
    "BERxiT",
    "DeeBERT",
    "ElasticBERT",
    "Exits",
    "FastBERT",
    "Joint",
    "LeeBERT",
    "MuE",
    "Objective",
    "PCEEv2",
    "ShallowDeep",
    "Stage",
    "TrainingProgress",
    "beem",
    "eeic",
    "exit_accuracies",
    "exit_correlations",
    "fixed",
    "needs_cascade",
    "needs_scores",
    "needs_shared_head",
    "objective",
    "register_objective",
    "stages",
    "task_loss",
    "weighted",
]
