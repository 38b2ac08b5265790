"""`eefast profile`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from eefast.measure import Profile


def profile(
    model: Annotated[Path, typer.Argument(help="folder of a multi-exit model and its tokenizer")],
    texts: Annotated[
        list[str] | None, typer.Argument(help="texts as they will come, each timed on its own")
    ] = None,
    length: Annotated[
        list[int] | None,
        typer.Option(help="instead of texts: so many tokens; may be given again", min=1),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="samples a call", min=1)] = 1,
    policy: Annotated[
        str,
        typer.Option(help="whose exit steps: by name, the one stored with the model or a new one"),
    ] = "confidence",
    rounds: Annotated[int, typer.Option(help="how often each is timed", min=1)] = 30,
    output: Annotated[
        Path | None, typer.Option(help="file of the costs, for eefast calibrate --costs")
    ] = None,
) -> None:
    """Time every layer and every exit step of a compiled model on this device.

    All of them take turns; medians are printed, in milliseconds a call. The file of costs holds
    their means over the texts or lengths, so give some that are like those to come.
    """
    import sys
    import warnings

    import torch
    from rich.console import Console

    from eefast import compile
    from eefast.calibration.costs import Costs
    from eefast.measure import processor, terminal_table
    from eefast.measure import profile as measured
    from eefast.prediction import longest_text
    from eefast.runtime import parts
    from eefast_cli.common import load

    if bool(texts) is bool(length):
        raise ValueError("give texts or --length, one of the two")
    if output is not None and not output.parent.is_dir():
        raise FileNotFoundError(f"--output: no folder {output.parent}")
    if output is not None and output.is_dir():
        raise IsADirectoryError(f"--output must be a file, {output} is a folder")
    multi_exit, tokenizer = load(model)
    with warnings.catch_warnings():  # of a policy that is not calibrated: times are alike
        warnings.simplefilter("ignore", UserWarning)
        fast = compile(multi_exit, policy)
    longest = longest_text(multi_exit, tokenizer)
    if texts:
        cut = {"truncation": longest is not None, "max_length": longest}
        inputs = [
            dict(tokenizer([text] * batch_size, return_tensors="pt", **cut)) for text in texts
        ]
    else:
        inputs = [multi_exit.layers.padding_only(batch_size, tokens) for tokens in length or ()]
    found = measured(
        [parts(fast, of_one) for of_one in inputs], rounds=rounds, progress=sys.stderr.isatty()
    )
    tokens = [of_one["input_ids"].shape[1] for of_one in inputs]
    console = Console()
    columns = ["layer", *(c for n in tokens for c in (f"{n} tokens", "exit step"))]
    rows = _rows(found, multi_exit.config.exits)
    console.print(terminal_table("milliseconds a call", columns, rows))
    console.print(
        f"medians of {rounds} rounds, all in turn; batch {batch_size}, {fast.device.type} "
        f"({processor()}), {torch.get_num_threads()} threads, {str(fast.dtype)[6:]}, exit steps of "
        f"{policy!r}, impl {fast.impl!r}",
        soft_wrap=True, markup=False, highlight=False,
    )  # fmt: skip
    if output is not None:
        unit = "ms" if batch_size == 1 else f"ms per call of {batch_size}"
        layers, exits = (times.mean(axis=0).tolist() for times in found)
        Costs(layers, exits, unit).save(output)
        console.print(f"written to {output}", soft_wrap=True, markup=False, highlight=False)


def _rows(found: Profile, exits: list[int]) -> list[list[str]]:
    """A row for each layer, and one for all of them; for each input a layer and its exit step."""
    rows = []
    for layer in range(1, found.layers.shape[1] + 1):
        row = [str(layer)]
        for layers, steps in zip(found.layers, found.exits, strict=True):
            step = f"{steps[exits.index(layer)]:.4f}" if layer in exits else ""
            row += [f"{layers[layer - 1]:.3f}", step]
        rows.append(row)
    total = ["all"]
    for layers, steps in zip(found.layers, found.exits, strict=True):
        total += [f"{layers.sum():.3f}", f"{steps.sum():.4f}"]
    return [*rows, total]
