"""The steps of the demo: train, record, calibrate, evaluate, report, classify."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from datasets import Dataset
from rich.console import Console
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerBase, set_seed

from eefast.attach import attach_exits
from eefast.data import class_names, encode
from eefast.demo.policies import CHOOSERS, STORED
from eefast.demo.report import against_fixed_depth, draw_curves_of, make_report, report_tables
from eefast.demo.tasks import run_folder, task_named
from eefast.evaluation import NEVER, evaluate, pooled, repeated_splits
from eefast.files import write_whole
from eefast.multi_exit import MultiExitModel
from eefast.policies import Never
from eefast.prediction import predict
from eefast.runtime import compile
from eefast.traces import cached_trace
from eefast.training.fine_tune import batches, fine_tune, is_finished

TIMED_TEXTS = 300


class Recipe(Protocol):
    """How `trained` trains; every `Task` is one."""

    @property
    def max_length(self) -> int:
        """Of a text, in tokens; longer ones are cut."""

    @property
    def learning_rate(self) -> float:
        """See `fine_tune`."""

    @property
    def epochs(self) -> float:
        """See `fine_tune`."""

    def pretrained(self) -> Path:
        """The folder of the model to start from."""


def run_demo(
    output: Path, *, task: str = "tweets", seed: int, sentences: Sequence[str] | None = None
) -> None:
    """Train, calibrate, time and report; every finished step is kept and reused.

    Args:
        output: in its folder `<task>-<seed>` there are then the model, the traces, `report.json`
            and `trade_off.png`.
        task: what to run it on, "tweets" or "reviews" (see `eefast.demo.TASKS`).
        seed: of the split of the data and of the training.
        sentences: what to classify at the end; the task's own unless given.

    Raises:
        ValueError: an unknown task.
    """
    chosen = task_named(task)
    folder = run_folder(output, task, seed)
    console, progress = Console(), sys.stderr.isatty()
    folder.mkdir(parents=True, exist_ok=True)
    data = chosen.load(seed)
    if is_finished(folder / "model"):
        console.print(f"using the trained model in {folder / 'model'}")
    else:
        console.print(
            f"training on {len(data['train'])} {chosen.title}; Ctrl-C keeps the last checkpoint"
        )
    model, tokenizer = trained(folder / "model", data["train"], chosen, seed)
    files = {split: folder / f"{split}.safetensors" for split in ("validation", "test")}
    traces = {}
    for split, file in files.items():
        encoded = encode(data[split], tokenizer, class_names(data[split]), chosen.max_length)
        traces[split] = cached_trace(file, model, batches(encoded, tokenizer), progress=progress)
    policies = {name: choose(traces["validation"]) for name, choose in CHOOSERS.items()}
    for name in STORED:
        model.set_policy(policies[name])
    model.save_policies(folder / "model")

    console.print("calibrating on random halves of the validation and test data, many times")
    splits = repeated_splits(
        {**CHOOSERS, NEVER: lambda _: Never()}, pooled([traces["validation"], traces["test"]])
    )
    found = evaluate(
        model,
        tokenizer,
        data["test"],
        policies=policies,
        max_length=chosen.max_length,
        timed=TIMED_TEXTS,
        trace=files["test"],
        progress=progress,
    )
    report = make_report(chosen, data, seed, found, splits)
    write_whole(folder / "report.json", json.dumps(report, indent=2) + "\n")
    draw_curves_of(folder / "trade_off.png", chosen, found, traces)
    for table in report_tables(report, found):
        console.print(table)
    console.print(against_fixed_depth(report), highlight=False)
    console.print(f"\nreport, picture and model: {folder}\n", soft_wrap=True)
    sentences = sentences or chosen.sentences
    answers = predict(compile(model, policy="beem"), tokenizer, sentences)
    for sentence, answer in zip(sentences, answers, strict=True):
        console.print(
            f"after layer {answer.exit_layer}: {answer.label} ({answer.score:.2f})  {sentence}",
            highlight=False,
            markup=False,
        )


def trained(
    folder: Path,
    data: Dataset,
    recipe: Recipe,
    seed: int,
    objective: str = "beem",
    *,
    layers: int | None = None,
    **options: Any,
) -> tuple[MultiExitModel, PreTrainedTokenizerBase]:
    """A model with exits, trained and saved in `folder`; if it is there, as it is.

    Args:
        folder: of the model.
        data: to train on.
        recipe: what to start from, and how to train it.
        seed: of new heads and of the training.
        objective: name of the training objective.
        layers: how many of the pretrained model's layers are taken; None: all.
        **options: further ones of `attach_exits`.

    Raises:
        FileNotFoundError: the package of the pretrained model is not installed.
        ValueError, OSError: as `fine_tune`.
    """
    if is_finished(folder):
        return MultiExitModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    source = recipe.pretrained()
    tokenizer = AutoTokenizer.from_pretrained(source)
    names = class_names(data)
    set_seed(seed)
    cut = {} if layers is None else {"num_hidden_layers": layers}
    model = attach_exits(
        AutoModel.from_pretrained(source, **cut),
        head="pooler",
        objective=objective,
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
        **options,
    )
    train = encode(data, tokenizer, names, recipe.max_length)
    fine_tune(
        model,
        tokenizer,
        train,
        folder,
        epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        seed=seed,
    )
    return model, tokenizer
