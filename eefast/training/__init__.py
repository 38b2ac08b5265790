"""Training of multi-exit models: objectives, and the loop behind `eefast train`."""

from eefast.labels import task_loss
from eefast.training.objectives import OBJECTIVES, Objective, beem, objective, weighted

__all__ = ["OBJECTIVES", "Objective", "beem", "objective", "task_loss", "weighted"]
