"""Training progress, for objectives that change while they are trained."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class TrainingProgress(TrainerCallback):
    """Tells the objective of the model how far its training is.

        Trainer(model, ..., callbacks=[eefast.training.TrainingProgress()]).train()

    An objective that wants to know has an attribute `progress`, None at first. Before each step it
    is set to the part of Trainer's steps that are done, in [0, 1) (with stages: of the current
    one's), and to None after the last. Without this callback such an objective is not trained: the
    model raises a ValueError. `fine_tune` has it.
    """

    def on_step_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **others: Any,
    ) -> None:
        """Before each step."""
        _set(others["model"], state.global_step / state.max_steps)

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **others: Any,
    ) -> None:
        """After the last step."""
        _set(others["model"], None)


def _set(model: Any, progress: float | None) -> None:
    if hasattr(model.objective, "progress"):
        model.objective.progress = progress
