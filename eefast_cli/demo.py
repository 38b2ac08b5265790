"""`eefast demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    sentences: Annotated[
        list[str] | None, typer.Argument(help="sentences to classify at the end")
    ] = None,
    output: Annotated[Path, typer.Option(help="folder of the results")] = Path("artifacts/demo"),
    seed: Annotated[int, typer.Option(help="of the split and the training")] = 1,
) -> None:
    """Fine-tune MiniLM with six exits on real tweets, calibrate, and time every policy."""
    from eefast.demo import run_demo

    run_demo(output, seed=seed, sentences=sentences or None)
