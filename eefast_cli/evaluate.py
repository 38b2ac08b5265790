"""`eefast evaluate`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    model: Annotated[Path, typer.Argument(help="folder of the model, from `eefast train`")],
    data: Annotated[str, typer.Argument(help="CSV or JSON file, or the name of a dataset")],
    output: Annotated[
        Path | None,
        typer.Option(
            help="folder of evaluation.json, trade_off.png and the trace",
            show_default="evaluation/<name of the data> in the model's folder",
        ),
    ] = None,
    text_column: Annotated[str, typer.Option(help="column of the texts")] = "text",
    label_column: Annotated[str, typer.Option(help="column of the labels")] = "label",
    max_length: Annotated[
        int | None,
        typer.Option(help="longest text, in tokens", show_default="what the model takes"),
    ] = None,
    timed: Annotated[int, typer.Option(help="texts to time, at most", min=1)] = 500,
) -> None:
    """Judge and time a model's policies, every fixed depth, and full depth in transformers.

    Prints accuracy, F1 and Matthews correlation, where samples exit, speed-ups and latencies
    (batch 1, on the CPU), and writes them with a picture into a folder. Of a dataset by name the
    test split is taken. The trace of every exit is kept and used again while model and data are
    the same.
    """
    import json
    import sys

    from rich.console import Console

    from eefast.data import load_table
    from eefast.evaluation import evaluate
    from eefast.files import write_whole
    from eefast_cli.common import load

    if output is not None and output.exists() and not output.is_dir():
        raise FileExistsError(f"--output must be a folder, {output} is a file")
    multi_exit, tokenizer = load(model)
    table = load_table(data, "test", text_column, label_column)
    name = re.sub(r"[^\w.-]+", "-", Path(data).stem)
    folder = model / "evaluation" / name if output is None else output
    folder.mkdir(parents=True, exist_ok=True)
    found = evaluate(
        multi_exit,
        tokenizer,
        table,
        max_length=max_length,
        timed=timed,
        trace=folder / "trace.safetensors",
        progress=sys.stderr.isatty(),
    )
    report = {"model": str(model), "data": data, **found.to_dict()}
    write_whole(folder / "evaluation.json", json.dumps(report, indent=2) + "\n")
    found.draw(folder / "trade_off.png", f"{model.resolve().name} on {name}")
    console = Console()
    for printed in found.tables():
        console.print(printed)
    if not found.policies:
        console.print(f"the model holds no policy; see: eefast calibrate {model} ...")
    console.print(f"written to {folder}", soft_wrap=True)
