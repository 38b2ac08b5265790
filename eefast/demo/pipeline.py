"""The steps of the demo: train, record, calibrate, evaluate, report, classify."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset
from rich.console import Console
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerBase, set_seed

from eefast.attach import attach_exits
from eefast.data import class_names, encode
from eefast.demo.policies import CHOOSERS, STORED
from eefast.demo.report import against_fixed_depth, draw_curves_of, make_report, report_tables
from eefast.demo.tasks import Task, run_folder, task_named
from eefast.evaluation import NEVER, evaluate, pooled, repeated_splits
from eefast.files import write_whole
from eefast.multi_exit import MultiExitModel
from eefast.policies import Never
from eefast.prediction import predict
from eefast.runtime import compile
from eefast.traces import cached_trace
from eefast.training.fine_tune import batches, fine_tune, is_finished

TIMED_TEXTS = 300


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
    folder: Path, data: Dataset, task: Task, seed: int, objective: str = "beem"
) -> tuple[MultiExitModel, PreTrainedTokenizerBase]:
    """A task's model with its exits, trained and saved in `folder`; if it is there, as it is."""
    if is_finished(folder):
        return MultiExitModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    source = task.pretrained()
    tokenizer = AutoTokenizer.from_pretrained(source)
    names = class_names(data)
    set_seed(seed)
    model = attach_exits(
        AutoModel.from_pretrained(source),
        head="pooler",
        objective=objective,
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
    )
    train = encode(data, tokenizer, names, task.max_length)
    fine_tune(
        model,
        tokenizer,
        train,
        folder,
        epochs=task.epochs,
        learning_rate=task.learning_rate,
        seed=seed,
    )
    return model, tokenizer
