"""The demo: from real weights and real texts to wall-clock speed-up, in one command."""

from eefast.demo.pipeline import run_demo
from eefast.demo.tasks import TASKS, trained_model

__all__ = ["TASKS", "run_demo", "trained_model"]
