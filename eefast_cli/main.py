"""The command `eefast`, and how its errors look."""

from __future__ import annotations

import functools
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

import typer

from eefast_cli.calibrate import calibrate
from eefast_cli.demo import demo
from eefast_cli.evaluate import evaluate
from eefast_cli.predict import predict
from eefast_cli.train import train

app = typer.Typer(
    help="Early-exit transformers whose wall-clock speed-up follows their layer speed-up.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain text: lines of any width, and "[...]" as it is
)


def interruptible(command: Callable[..., None]) -> Callable[..., None]:
    """Ctrl-C ends a command with one line and a shell's own exit code for it."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt as interrupted:
            _fail(str(interrupted) or "interrupted", 130)

    return run


for command in (calibrate, demo, evaluate, predict, train):
    app.command()(interruptible(command))


def main() -> None:
    """Entry point: wrong input gives one line that says so, without a traceback."""
    _be_quiet()
    try:
        app()
    except (ValueError, TypeError, OSError) as error:
        _fail(f"error: {error}")
    except ModuleNotFoundError as error:
        if error.name not in ("accelerate", "datasets", "matplotlib", "scipy", "sklearn"):
            raise
        _fail(f"error: this command needs {error.name}: install eefast with its extra [demo]")


def _be_quiet() -> None:
    """One line a warning; no bars and no log of others where stderr is not a terminal.

    Said by environment variables, because the libraries that read them are not imported yet.
    """
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def _fail(message: str, code: int = 2) -> NoReturn:
    typer.secho(" ".join(message.split()), fg="red", err=True)
    raise SystemExit(code)
