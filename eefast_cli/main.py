"""The command `eefast`, and how its errors look."""

from __future__ import annotations

from typing import NoReturn

import typer
from rich.console import Console

from eefast_cli.demo import demo
from eefast_cli.evaluate import evaluate
from eefast_cli.train import train

app = typer.Typer(
    help="Early-exit transformers whose wall-clock speed-up follows their layer speed-up.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for command in (demo, evaluate, train):
    app.command()(command)


def main() -> None:
    """Entry point: wrong input gives one line that says so, without a traceback."""
    try:
        app()
    except (ValueError, TypeError, OSError) as error:
        _fail(str(error))
    except ModuleNotFoundError as error:
        if error.name not in ("accelerate", "datasets", "matplotlib", "sklearn"):
            raise
        _fail(f"this command needs {error.name}: install eefast with its extra [demo]")


def _fail(message: str) -> NoReturn:
    Console(stderr=True).print(f"error: {message}", style="red", markup=False, highlight=False)
    raise SystemExit(2)
