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

    An attribute `steps` is set to the number of Trainer's steps that are done, before each step.
    """

    def on_step_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **others: Any,
    ) -> None:
        """Before each step."""
        set_progress(others["model"], state.global_step / state.max_steps)
        if hasattr(others["model"].objective, "steps"):
            others["model"].objective.steps = state.global_step

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **others: Any,
    ) -> None:
        """After the last step."""
        set_progress(others["model"], None)


def set_progress(model: Any, progress: float | None) -> None:
    """Tell the objective of a model, if it wants to know."""
    if hasattr(model.objective, "progress"):
        model.objective.progress = progress
