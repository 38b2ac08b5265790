"""`eefast train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console


def train(
    model: Annotated[str, typer.Argument(help="a transformers model: folder or hub name")],
    data: Annotated[str, typer.Argument(help="CSV or JSON file, or the name of a dataset")],
    output: Annotated[Path, typer.Argument(help="folder of the finished model")],
    validation: Annotated[
        str | None,
        typer.Option(help="file or dataset to calibrate BEEM on (a dataset's validation split)"),
    ] = None,
    text_column: Annotated[str, typer.Option(help="column of the texts")] = "text",
    label_column: Annotated[str, typer.Option(help="column of the labels")] = "label",
    exits: Annotated[
        str, typer.Option(help="'all', or layers with an exit, e.g. '3,6,9,12'")
    ] = "all",
    head: Annotated[str, typer.Option(help="'linear' or 'pooler'")] = "linear",
    objective: Annotated[str, typer.Option(help="'beem', 'weighted', 'eeic' or 'berxit'")] = "beem",
    epochs: Annotated[float, typer.Option(help="passes over the data", min=0.0)] = 3.0,
    batch_size: Annotated[int, typer.Option(help="samples a step", min=1)] = 32,
    learning_rate: Annotated[float, typer.Option(help="peak learning rate")] = 5e-5,
    max_length: Annotated[int, typer.Option(help="longest text, in tokens", min=3)] = 128,
    seed: Annotated[int, typer.Option(help="of the heads, the order and dropout")] = 0,
) -> None:
    """Attach exits to a classifier, train them and, given validation data, calibrate BEEM.

    After an interruption, the same command continues from the last checkpoint (one every 100
    steps).
    """
    from transformers import AutoModel, AutoTokenizer, set_seed

    from eefast.attach import attach_exits
    from eefast.calibration import calibrate
    from eefast.data import class_names, encode, load_table
    from eefast.traces import record_trace
    from eefast.training.fine_tune import batches, fine_tune

    tokenizer = AutoTokenizer.from_pretrained(model)
    table = load_table(data, "train", text_column, label_column)
    names = class_names(table)
    held_out = None
    if validation is not None:
        held_out = load_table(validation, "validation", text_column, label_column)
        held_out = encode(held_out, tokenizer, names, max_length)
    set_seed(seed)
    multi_exit = attach_exits(
        AutoModel.from_pretrained(model),
        _layers(exits),
        head,  # type: ignore[arg-type]  # checked by attach_exits
        objective=objective,
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
    )
    fine_tune(
        multi_exit,
        tokenizer,
        encode(table, tokenizer, names, max_length),
        output,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
    )
    if held_out is not None:
        trace = record_trace(multi_exit, batches(held_out, tokenizer), progress=True)
        trace.save(output / "validation_trace.safetensors")
        multi_exit.set_policy(calibrate("beem", trace))
        multi_exit.config.save_pretrained(output)
        accuracies = ", ".join(f"{accuracy:.3f}" for accuracy in trace.accuracies())
        Console().print(f"validation accuracy of each exit: {accuracies}")
    Console().print(f"saved in {output}: eefast.MultiExitModel.from_pretrained({str(output)!r})")


def _layers(exits: str) -> Literal["all"] | list[int]:
    if exits == "all":
        return "all"
    try:
        return [int(layer) for layer in exits.split(",")]
    except ValueError:
        raise ValueError(
            f"exits must be 'all' or layers such as '3,6,9,12', got {exits!r}"
        ) from None
