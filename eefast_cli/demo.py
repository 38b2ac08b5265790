"""`eefast demo`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from eefast_cli.common import load
from eefast_cli.predict import print_answers


def demo_folder() -> Path:
    """Where the demo keeps its results, from whatever folder it is called."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "eefast" / "demo"


def demo(
    output: Annotated[
        Path,
        typer.Option(
            default_factory=demo_folder,
            show_default="$XDG_CACHE_HOME/eefast/demo, or ~/.cache/eefast/demo",
            help="folder where models and results are kept and looked for",
        ),
    ],
    sentences: Annotated[list[str] | None, typer.Argument(help="texts to classify")] = None,
    task: Annotated[str, typer.Option(help="'tweets' or 'reviews'")] = "tweets",
    seed: Annotated[int, typer.Option(help="of the split and the training")] = 1,
) -> None:
    """Early exits on real texts, from training to wall-clock speed-up.

    Fine-tunes MiniLM with an exit after each of its six layers, calibrates every exit policy,
    times them, and writes a report and a picture: about 15 minutes. What is finished is kept and
    not done again; Ctrl-C keeps the last checkpoint.

    Given texts, and with the model there from an earlier run, it classifies them at once.
    """
    from eefast.demo import run_demo, trained_model

    folder = trained_model(output, task, seed)
    if folder is None:
        typer.echo(
            f"no trained model in {output}: training it takes about 10 minutes, and timing all "
            "policies 5 more (Ctrl-C keeps the last checkpoint)",
            err=True,
        )
    elif sentences:
        model, tokenizer = load(folder)
        if model.config.policies:  # else it was interrupted before it was calibrated
            print_answers(model, tokenizer, sentences)
            return
    run_demo(output, task=task, seed=seed, sentences=sentences or None)
