"""`eefast calibrate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from eefast.calibration import Costs
    from eefast.policies import Expected


def calibrate(
    model: Annotated[Path, typer.Argument(help="folder of a multi-exit model and its tokenizer")],
    data: Annotated[
        str, typer.Argument(help="validation data: CSV or JSON file, or the name of a dataset")
    ],
    policy: Annotated[str, typer.Option(help="exit policy by name")] = "beem",
    target_speedup: Annotated[
        float | None,
        typer.Option(help="take the most accurate setting that runs this many times fewer layers"),
    ] = None,
    max_accuracy_drop: Annotated[
        float | None,
        typer.Option(
            help="take the fastest setting that loses at most this against the last exit; 0.005 "
            "is half a point"
        ),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(help="take the most accurate setting whose samples cost at most this"),
    ] = None,
    costs: Annotated[
        Path | None,
        typer.Option(help="what --budget counts: a file of `eefast profile`; otherwise layers"),
    ] = None,
    metric: Annotated[
        str, typer.Option(help="accuracy, f1, matthews, pearson or spearman: what is compared")
    ] = "accuracy",
    text_column: Annotated[str, typer.Option(help="column of the texts")] = "text",
    label_column: Annotated[str, typer.Option(help="column of the labels")] = "label",
    max_length: Annotated[
        int | None,
        typer.Option(help="longest text, in tokens", min=3, show_default="what the model takes"),
    ] = None,
) -> None:
    """Choose a policy's numbers on validation data, and store it with the model.

    With no target, drop, budget or metric, BEEM is calibrated by its paper's Eq. 3, and any other
    policy for the highest accuracy. Prints what is to be expected of it, and of the fixed depth
    that the same rule chooses; with a budget also what a sample costs. Of a dataset by name the
    validation split is taken. The trace of every exit is kept in the model's folder and used again
    while model and data are the same.
    """
    from rich.console import Console

    from eefast.calibration import Goal, calibrate
    from eefast.data import encode, load_table
    from eefast.measure import terminal_table
    from eefast.policies import Budgeted, policy_class
    from eefast.prediction import longest_text
    from eefast.traces import cached_trace, simulate
    from eefast.training.fine_tune import batches
    from eefast_cli.common import load, warn_of_exits_at_chance

    chosen_class = policy_class(policy)
    rule: dict[str, Any] = {
        "target_speedup": target_speedup,
        "max_accuracy_drop": max_accuracy_drop,
        "budget": budget,
        "costs": None if costs is None else _costs(costs),
        "metric": metric,
    }
    goal = Goal(**rule)  # says what is wrong before anything is recorded
    multi_exit, tokenizer = load(model)
    max_length = longest_text(multi_exit, tokenizer, max_length)
    table = load_table(data, "validation", text_column, label_column)
    classes: Any = multi_exit.config.id2label
    names = [classes[number] for number in range(multi_exit.num_classes)]
    encoded = encode(table, tokenizer, names, max_length)
    trace = cached_trace(
        model / "validation_trace.safetensors",
        multi_exit,
        batches(encoded, tokenizer),
        progress=sys.stderr.isatty(),
    )
    chosen = calibrate(chosen_class, trace, **rule)
    fixed = calibrate(Budgeted, trace, **rule)
    full = calibrate(Budgeted, trace, space=[Budgeted(trace.num_exits)])
    multi_exit.set_policy(chosen)
    multi_exit.save_policies(model)
    warn_of_exits_at_chance(trace)
    layer = trace.exit_layers[fixed.exits_used(trace.num_exits)[0] - 1]
    rows = [
        _row(policy, chosen.expected),
        _row(f"fixed depth, {layer} layer{'s' * (layer > 1)}", fixed.expected),
        _row(f"full depth, {trace.exit_layers[-1]} layers", full.expected),
    ]
    columns = ["", "accuracy", "layer speed-up"]
    outcomes = [simulate(of_row, trace) for of_row in (chosen, fixed, full)]
    if metric != "accuracy":
        columns.append(metric)
        for row, outcome in zip(rows, outcomes, strict=True):
            row.append(f"{outcome.metric(metric):.3f}")
    title = f"expected, from {len(table)} samples, with 95 % intervals"
    console = Console()
    console.print(terminal_table(title, columns, rows))
    if budget is not None:
        counted = goal.costs_of(trace)
        spent = [
            f"{row[0]} {counted.per_sample(of_row, outcome):.4g}"
            for row, of_row, outcome in zip(rows, (chosen, fixed, full), outcomes, strict=True)
        ]
        console.print(
            f"mean cost of a sample in {counted.unit}: {'; '.join(spent)} (budget {budget:g})",
            soft_wrap=True, markup=False, highlight=False,
        )  # fmt: skip
    console.print(
        "They were chosen on these samples, which makes them look a little better than they are.\n"
        f"stored in {model} as its policy {policy!r}",
        soft_wrap=True, markup=False, highlight=False,
    )  # fmt: skip


def _costs(path: Path) -> Costs:
    from eefast.calibration import Costs

    try:
        return Costs.load(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"--costs must be a file that `eefast profile` wrote: {error}") from None


def _row(name: str, expected: Expected | None) -> list[str]:
    assert expected is not None
    return [
        name,
        _with_interval(expected.accuracy, expected.accuracy_interval, ".3f"),
        _with_interval(expected.layer_speedup, expected.layer_speedup_interval, ".2f"),
    ]


def _with_interval(value: float, ends: tuple[float, float], digits: str) -> str:
    low, high = (format(end, digits) for end in ends)
    return format(value, digits) + (f" ({low}-{high})" if low != high else "")
