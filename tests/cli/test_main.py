"""The command itself: what it loads, what it leaves out of a pipe, how it ends."""

import subprocess
import sys

import pytest
import typer

from eefast_cli import main as command_line

LISTS_WHAT_IS_LOADED = """
import sys
import eefast_cli.main
print(sorted({name.partition(".")[0] for name in sys.modules} & set(sys.argv[1:])))
"""


def test_importing_the_command_line_loads_neither_torch_nor_transformers():
    heavy = ["torch", "transformers", "datasets", "numpy", "tqdm", "eefast"]
    result = subprocess.run(
        [sys.executable, "-c", LISTS_WHAT_IS_LOADED, *heavy], capture_output=True, text=True
    )
    assert result.stdout == "[]\n", result.stderr


def test_a_pipe_gets_the_answer_without_bars_and_a_warning_in_one_line(model_folder):
    call = "import sys; from eefast_cli.main import main; main()"
    arguments = ["predict", str(model_folder), "--policy", "entropy", "the good film"]
    result = subprocess.run(
        [sys.executable, "-c", call, *arguments], capture_output=True, text=True
    )
    assert result.returncode == 0
    assert result.stdout.startswith("after layer ")
    (line,) = result.stderr.splitlines()  # no bar, and no line of source
    assert line.startswith("warning: the model holds no calibrated policy 'entropy'")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("labels must be\n  whole [bold]numbers[/bold]"), 2,
         "error: labels must be whole [bold]numbers[/bold]"),
        (OSError(28, "No space left on device", "/a/b"), 2,
         "error: [Errno 28] No space left on device: '/a/b'"),
        (ModuleNotFoundError("no", name="accelerate"), 2,
         "error: this command needs accelerate: install eefast with its extra [demo]"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (KeyboardInterrupt("interrupted: go on so"), 130, "interrupted: go on so"),
    ],
)  # fmt: skip
def test_an_error_is_one_line_on_stderr(shell, monkeypatch, error, code, line):
    def fails():
        raise error

    app = typer.Typer()
    app.command()(command_line.interruptible(fails))
    monkeypatch.setattr(command_line, "app", app)
    assert shell() == (code, "", line + "\n")


def test_what_is_not_the_users_fault_keeps_its_traceback(shell, monkeypatch):
    def fails():
        raise KeyError("a bug")

    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(fails)
    monkeypatch.setattr(command_line, "app", app)
    with pytest.raises(KeyError):
        shell()
