"""`eefast train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from eefast_cli.common import load_tokenizer, warn_of_exits_at_chance

_MAX_LENGTH = 128
"""In tokens, unless the model takes less or another number is asked for."""


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
    objective: Annotated[
        str, typer.Option(help="training of a paper by its name: 'beem', 'pabee', 'deebert', ...")
    ] = "beem",
    epochs: Annotated[
        float, typer.Option(help="passes over the data (in each stage of the objective)", min=0.0)
    ] = 3.0,
    batch_size: Annotated[int, typer.Option(help="samples a step", min=1)] = 32,
    learning_rate: Annotated[float, typer.Option(help="peak learning rate")] = 5e-5,
    max_length: Annotated[
        int | None,
        typer.Option(
            help="longest text, in tokens", min=3, show_default="128, or what the model takes"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="of the heads, the order and dropout")] = 0,
) -> None:
    """Give a model exits, train it, and calibrate BEEM.

    BEEM is calibrated on the validation data, if there are any. After an interruption, the same
    command continues from the last checkpoint (one every 100 steps, only the last is kept). Of a
    finished model the stored policies are kept.
    """
    from transformers import AutoConfig, AutoModel, set_seed

    from eefast.attach import attach_exits
    from eefast.calibration import calibrate
    from eefast.config import MultiExitConfig
    from eefast.data import class_names, encode, load_table
    from eefast.multi_exit import MultiExitModel
    from eefast.traces import cached_trace
    from eefast.training.fine_tune import batches, fine_tune, is_finished

    if not Path(model).exists() and (model.count("/") > 1 or model.startswith((".", "/", "~"))):
        raise FileNotFoundError(f"no model folder {model}")  # names have at most one "/"
    tokenizer = load_tokenizer(model)
    table = load_table(data, "train", text_column, label_column)
    names = class_names(table)
    held_out = None
    if validation is not None:
        held_out = load_table(validation, "validation", text_column, label_column)
    if isinstance(AutoConfig.from_pretrained(model), MultiExitConfig):
        raise ValueError(f"{model} has exits already: give the model that it was made from")
    set_seed(seed)
    multi_exit = attach_exits(
        AutoModel.from_pretrained(model),
        _layers(exits),
        head,  # type: ignore[arg-type]  # checked by attach_exits
        objective=objective,
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
    )
    longest = multi_exit.layers.max_length
    if max_length is None:
        max_length = _MAX_LENGTH if longest is None else min(_MAX_LENGTH, longest)
    elif longest is not None and max_length > longest:
        raise ValueError(f"--max-length must be at most {longest} for {model}, got {max_length}")
    encoded = encode(table, tokenizer, names, max_length)
    if held_out is not None:
        held_out = encode(held_out, tokenizer, names, max_length)
    finished = is_finished(output)
    fine_tune(
        multi_exit,
        tokenizer,
        encoded,
        output,
        validation=held_out,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
    )
    if held_out is not None:
        path = output / "validation_trace.safetensors"
        trace = cached_trace(path, multi_exit, batches(held_out, tokenizer), progress=True)
        if finished and "beem" in MultiExitModel.from_pretrained(output).config.policies:
            typer.echo("its policy 'beem' is kept; to choose it anew: eefast calibrate", err=True)
        else:
            if finished:  # what `eefast calibrate` has stored since
                multi_exit = MultiExitModel.from_pretrained(output)
            multi_exit.set_policy(calibrate("beem", trace))
            multi_exit.save_policies(output)
        accuracies = ", ".join(f"{accuracy:.3f}" for accuracy in trace.accuracies())
        typer.echo(f"validation accuracy of each exit: {accuracies}")
        warn_of_exits_at_chance(trace)
    typer.echo(f'saved in {output}; try it: eefast predict {output} "a text"')


def _layers(exits: str) -> Literal["all"] | list[int]:
    if exits == "all":
        return "all"
    try:
        return [int(layer) for layer in exits.split(",")]
    except ValueError:
        raise ValueError(
            f"exits must be 'all' or layers such as '3,6,9,12', got {exits!r}"
        ) from None
