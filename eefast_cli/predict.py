"""`eefast predict`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from eefast_cli.common import load
from eefast_cli.rows import columns_of, read_rows, row_writer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from eefast import MultiExitModel
    from eefast.prediction import Prediction

ADDED = ("label", "score", "exit_layer")


def predict(
    model: Annotated[Path, typer.Argument(help="folder of a multi-exit model and its tokenizer")],
    texts: Annotated[list[str] | None, typer.Argument(help="texts to classify")] = None,
    file: Annotated[
        Path | None, typer.Option(help="classify the rows of this .csv, .json or .jsonl file")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="file of the answers; stdout unless given")
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(help="exit policy by name; by default the one stored with the model, or beem"),
    ] = None,
    text_column: Annotated[str, typer.Option(help="column of the texts")] = "text",
    batch_size: Annotated[int, typer.Option(help="texts a call", min=1)] = 32,
) -> None:
    """Classify texts, or the rows of a file, with early exits.

    Rows come out in their order, as CSV or as JSON lines, with all of their columns and three
    more: label, score (the label's probability) and exit_layer. If the file has a column of one
    of these names, the three are called predicted_label, predicted_score and
    predicted_exit_layer.

    Each row is written as soon as it is finished. Until all are, the output is called
    OUTPUT.part: after an interruption the finished rows are there. Texts that are longer than the
    model takes are cut.
    """
    if (file is None) is not bool(texts):
        raise ValueError("give texts or --file, one of the two")
    if texts:
        from eefast.rows import FORMATS

        if texts[0].lower().endswith(FORMATS) and os.path.isfile(texts[0]):
            raise ValueError(f"{texts[0]} is a file: to classify its rows, --file {texts[0]}")
        if output is not None:
            raise ValueError("--output needs --file: answers to texts are printed")
        print_answers(*load(model), texts, policy, batch_size)
        return
    assert file is not None
    if output is not None and output.suffix.lower() != file.suffix.lower():
        raise ValueError(f"--output must end with {file.suffix}, as --file, got {output}")
    if output is not None and output.is_dir():
        raise IsADirectoryError(f"--output must be a file, {output} is a folder")
    if output is not None and not output.parent.is_dir():
        raise FileNotFoundError(f"--output: no folder {output.parent}")
    if output is not None and output.exists() and output.samefile(file):
        raise ValueError(f"--output must be another file than --file, got {output} for both")
    rows = read_rows(file, text_column)
    names = _new_columns(columns_of(rows), file)
    texts = [row[text_column] for row in rows]
    answers = _answers(*load(model), texts, policy, batch_size)
    with _written(output) as stream:
        write = row_writer(file, stream, [*columns_of(rows), *names])
        for row, answer in zip(_counted(rows, output), answers, strict=True):
            values = (answer.label, round(answer.score, 6), answer.exit_layer)
            write({**row, **dict(zip(names, values, strict=True))})
    if output is not None:
        typer.echo(f"{len(rows)} rows in {output}", err=True)


def print_answers(
    model: MultiExitModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    policy: str | None = None,
    batch_size: int = 32,
) -> None:
    """Classify texts, and print a line for each."""
    answers = _answers(model, tokenizer, texts, policy, batch_size)
    for text, answer in zip(texts, answers, strict=True):
        typer.echo(f"after layer {answer.exit_layer}: {answer.label} ({answer.score:.2f})  {text}")


def _answers(
    model: MultiExitModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    policy: str | None,
    batch_size: int,
) -> Iterator[Prediction]:
    from eefast import compile
    from eefast.prediction import predict

    fast = compile(model, policy or _stored(model))
    return predict(fast, tokenizer, texts, batch_size=batch_size)


def _stored(model: MultiExitModel) -> str:
    stored = list(model.config.policies)
    if len(stored) == 1:
        return str(stored[0])
    if stored and "beem" not in stored:
        raise ValueError(f"--policy must name one of the stored policies: {stored}")
    return "beem"


def _new_columns(columns: Sequence[str], file: Path) -> tuple[str, ...]:
    plain, other = ADDED, tuple(f"predicted_{name}" for name in ADDED)
    for names in (plain, other):
        if not set(names) & set(columns):
            return names
    raise ValueError(f"{file}: no names are left for the answers beside {columns}")


@contextmanager
def _written(output: Path | None) -> Iterator[TextIO]:
    """Where rows go: stdout, or a file that gets its name when they are complete."""
    if output is None:
        yield sys.stdout
        return
    part = output.with_name(output.name + ".part")
    try:
        with part.open("x", encoding="utf-8", newline="") as stream:
            yield stream
    except FileExistsError:
        raise FileExistsError(
            f"{part} holds rows of another run, interrupted or still going on: move it, remove it, "
            "or give another --output"
        ) from None
    except OSError as error:
        error.filename = str(part)  # a full disk does not say which
        raise
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted: the finished rows are in {part}") from None
    os.replace(part, output)


def _counted(rows: Sequence[Any], output: Path | None) -> Iterator[Any]:
    """The rows, under a progress bar where it does not run into them."""
    from tqdm.auto import tqdm

    to_terminal = output is None and sys.stdout.isatty()
    yield from tqdm(rows, "predicting", disable=to_terminal or None, unit=" rows")
