"""The demo's model on its test texts, in every precision of packed layers.

    python -m bench.cpu_texts > docs/cpu_texts.md    # after `make demo`; some minutes

Accuracy and exits are of all test texts, in batches; times are of single texts, every variant in
turn on the same text. The policy is the demo's BEEM-A, calibrated on the model's own layers.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer

from eefast import MultiExitModel, compile
from eefast.data import class_names, encode
from eefast.demo import TASKS
from eefast.demo.tasks import trained_model
from eefast.lowering import PRECISIONS
from eefast.measure import host, time_interleaved
from eefast.policies import Budgeted, Never, Policy
from eefast.training.fine_tune import batches
from eefast_cli.demo import demo_folder

TASK, SEED, POLICY = "tweets", 1, "beem"
TIMED, ROUNDS = 300, 3
OWN = "own layers"
HOW = """\
MiniLM with six exits; BEEM-A as calibrated on the model's own layers. "Changed" is against these.
The last column is the speed-up over `Never()` of the same layers, over the layer speed-up: 1 is
what a decision without any cost would give. No other engine is in this table: see `make peers`."""


@dataclass(frozen=True)
class Answers:
    """Of all test texts, in their order."""

    predictions: Tensor
    exit_layers: Tensor


def main() -> None:
    """Print the page."""
    folder = trained_model(demo_folder(), TASK, SEED)
    if folder is None:
        sys.exit("there is no trained model: run `make demo` first")
    model = MultiExitModel.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    data = TASKS[TASK].load(SEED)["test"]
    encoded = encode(data, tokenizer, class_names(data), TASKS[TASK].max_length)
    labels = torch.tensor(encoded["labels"])
    texts = [
        dict(tokenizer(text, truncation=True, max_length=64, return_tensors="pt"))
        for text in list(data["text"])[:TIMED]
    ]
    print(f"# Packed layers on the demo's tweets\n\n{setting(len(labels))}\n\n{HOW}\n")
    print(
        "| policy | layers | accuracy | exits changed | answers changed | layer speed-up | p50 ms "
        "| faster than own layers | wall clock over layer speed-up |\n" + "|---" * 9 + "|"
    )
    policies = chosen(model)
    compiled = {
        name: compile(model, Never(), dtype=None if name == OWN else name)
        for name in (OWN, *PRECISIONS)
    }
    total: dict[tuple[str, str], float] = {}
    for title, policy in policies.items():
        for fast in compiled.values():
            fast.policy = policy
        answers = {
            name: answered(fast, batches(encoded, tokenizer)) for name, fast in compiled.items()
        }
        times = time_interleaved(compiled, texts, rounds=ROUNDS)
        for name, of_one in answers.items():
            own = answers[OWN]
            total[title, name] = times[name].total_ms
            speedup = model.layers.depth / of_one.exit_layers.double().mean().item()
            wall = total["never", name] / times[name].total_ms
            print(
                f"| {title} | {name} | {(of_one.predictions == labels).double().mean():.4f} | "
                f"{changed(of_one.exit_layers, own.exit_layers)} | "
                f"{changed(of_one.predictions, own.predictions)} | {speedup:.2f}x | "
                f"{times[name].p50_ms:.2f} | "
                f"{times[OWN].total_ms / times[name].total_ms:.2f}x | {wall / speedup:.3f} |",
                flush=True,
            )


def chosen(model: MultiExitModel) -> Mapping[str, Policy]:
    """By title; the wall clock of the others is compared with the first."""
    calibrated = model.get_policy(POLICY)
    if calibrated is None:
        sys.exit(f"the model has no policy {POLICY!r}: run `make demo` again")
    return {"never": Never(), POLICY: calibrated, "fixed depth 4": Budgeted(4)}


def answered(fast: Any, loader: Any) -> Answers:
    """What a compiled model answers, and where it stops."""
    outputs = [fast(**{k: v for k, v in batch.items() if k != "labels"}) for batch in loader]
    return Answers(
        torch.cat([out.prediction for out in outputs]),
        torch.cat([out.exit_layer for out in outputs]),
    )


def changed(ours: Tensor, own: Tensor) -> str:
    return f"{(ours != own).sum().item()} of {len(own)}"


def setting(texts: int) -> str:
    """Where and on what it was measured."""
    machine = host()
    return (
        f"{texts} test texts; times of the first {TIMED}, batch 1, median of {ROUNDS} rounds, "
        f"{machine['threads']} threads of {machine['cpu']}, torch {torch.__version__}."
    )


if __name__ == "__main__":
    main()
