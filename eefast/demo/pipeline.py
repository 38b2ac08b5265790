"""The steps of the demo: train, record, calibrate, time, report, classify."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, DatasetDict
from rich.console import Console
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertForSequenceClassification,
    PreTrainedTokenizerBase,
    set_seed,
)

from eefast.attach import attach_exits
from eefast.calibration import calibrate
from eefast.data import class_names, encode
from eefast.demo.report import draw_trade_off, make_report, results_tables
from eefast.demo.tasks import Task, run_folder, task_named
from eefast.measure import Latency, time_interleaved, write_whole
from eefast.multi_exit import MultiExitModel
from eefast.policies import Never, Policy
from eefast.runtime import compile
from eefast.traces import ExitTrace, record_trace, simulate
from eefast.training.fine_tune import batches, fine_tune, is_finished

TIMED_TWEETS = 500
TOLERANCE = 0.0
"""What a searched policy may lose of validation accuracy against the last exit: nothing."""


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
    output = run_folder(output, task, seed)
    console = Console()
    output.mkdir(parents=True, exist_ok=True)
    data = chosen.load(seed)
    folder = output / "model"
    if is_finished(folder):
        console.print(f"using the trained model in {folder}")
    else:
        console.print(
            f"training on {len(data['train'])} {chosen.title}; Ctrl-C keeps the last checkpoint"
        )
    model, tokenizer = trained(folder, data["train"], chosen, seed)
    traces = {
        split: _recorded(output / f"{split}.safetensors", model, tokenizer, data, chosen, split)
        for split in ("validation", "test")
    }
    policies = calibrated(traces["validation"])
    model.set_policy(policies["BEEM-A"])
    model.config.save_pretrained(folder)

    outcomes = {name: simulate(policy, traces["test"]) for name, policy in policies.items()}
    timed, latencies = _timed(model, tokenizer, data, chosen, policies)
    report = make_report(data, seed, traces["test"], policies, outcomes, timed, latencies)
    write_whole(output / "report.json", json.dumps(report, indent=2) + "\n")
    draw_trade_off(output / "trade_off.png", traces, outcomes)
    for table in results_tables(report):
        console.print(table)
    console.print(f"report and picture: {output / 'report.json'}, {output / 'trade_off.png'}\n")
    _classify(model, tokenizer, chosen, sentences or chosen.sentences, console)


def calibrated(validation: ExitTrace) -> dict[str, Policy]:
    """The policies of the demo by name, with every number chosen on validation data.

    BEEM-A and BEEM-C as in the paper (Eq. 3). The rows with one threshold or patience for all
    exits are all searched for the same: the fastest setting that is as accurate as the last exit.
    """
    fine = [i / 20 for i in range(1, 20 * validation.num_exits)]
    return {
        "BEEM-A": calibrate("beem", validation, weights="accuracy"),
        "BEEM-C": calibrate("beem", validation, weights="cost"),
        **{
            f"{name}, searched": calibrate(
                "beem",
                validation,
                weights=weights,
                thresholds="search",
                space=fine,
                max_accuracy_drop=TOLERANCE,
            )
            for name, weights in (("BEEM-A", "accuracy"), ("BEEM-C", "cost"))
        },
        "PABEE": calibrate("pabee", validation, max_accuracy_drop=TOLERANCE),
        "PCEE": calibrate("pcee", validation, max_accuracy_drop=TOLERANCE),
        "entropy": calibrate("entropy", validation, max_accuracy_drop=TOLERANCE),
        "fixed depth": calibrate("budgeted", validation, max_accuracy_drop=TOLERANCE),
        "never": Never(),
    }


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


def _recorded(
    path: Path,
    model: MultiExitModel,
    tokenizer: PreTrainedTokenizerBase,
    data: DatasetDict,
    task: Task,
    split: str,
) -> ExitTrace:
    if path.exists():
        return ExitTrace.load(path)
    names = class_names(data[split])
    encoded = encode(data[split], tokenizer, names, task.max_length)
    trace = record_trace(model, batches(encoded, tokenizer), progress=True)
    trace.save(path)
    return trace


def full_depth_model(model: MultiExitModel) -> Any:
    """transformers' own classifier with the weights of the backbone and of the last exit."""
    config = copy.deepcopy(model.config.backbone_config)
    config.num_labels = model.num_classes
    full: Any = BertForSequenceClassification(config)
    full.bert.embeddings, full.bert.encoder = model.backbone.embeddings, model.backbone.encoder
    full.bert.pooler.dense = model.heads.poolers[-1]
    full.classifier = model.heads.classifiers[-1]
    return full.eval()


def _timed(
    model: MultiExitModel,
    tokenizer: PreTrainedTokenizerBase,
    data: DatasetDict,
    task: Task,
    policies: dict[str, Policy],
) -> tuple[dict[str, torch.Tensor], dict[str, Latency]]:
    """Exit layers [500] of each policy on real test tweets, one at a time, and their times."""
    texts = data["test"]["text"][:TIMED_TWEETS]
    inputs = [
        dict(tokenizer(text, truncation=True, max_length=task.max_length, return_tensors="pt"))
        for text in texts
    ]
    full = full_depth_model(model)

    @torch.inference_mode()
    def full_depth(**kwargs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = full(**kwargs).logits
        return logits

    variants: dict[str, Callable[..., Any]] = {"full depth": full_depth}
    compiled = {name: compile(model, policy) for name, policy in policies.items()}
    variants.update(compiled)
    exits = {
        name: torch.cat([fast(**kwargs).exit_layer for kwargs in inputs])
        for name, fast in compiled.items()
    }
    return exits, time_interleaved(variants, inputs, progress=True)


def _classify(
    model: MultiExitModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    sentences: Sequence[str],
    console: Console,
) -> None:
    names: Any = model.config.id2label
    fast = compile(model, policy="beem")
    batch = tokenizer(
        list(sentences),
        padding=True,
        truncation=True,
        max_length=task.max_length,
        return_tensors="pt",
    )
    out = fast(**batch)
    probabilities = out.logits.softmax(-1).amax(-1)
    for i, sentence in enumerate(sentences):
        label = names[int(out.prediction[i])]
        console.print(
            f"after layer {int(out.exit_layer[i])}: {label} ({probabilities[i]:.2f})  {sentence}",
            highlight=False,
            markup=False,
        )
