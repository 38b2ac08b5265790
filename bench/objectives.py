"""Two objectives and their policies from training to the clock, on the demo's tweets.

    python -m bench.objectives   # about 10 minutes on two cores; writes docs/objectives.md

For each objective MiniLM with six exits is trained on a part of the demo's training split,
every exit is recorded on its validation and test splits, and each policy is calibrated by one rule:
on validation data, the fastest setting that loses at most half a point against the last exit. Fixed
depth is chosen by the same rule. Then the policies are compiled and timed at batch 1. A finished
training is kept in build/objectives and used again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from datasets import DatasetDict
from transformers import PreTrainedTokenizerBase

from eefast import MultiExitModel, calibrate, compile, record_trace, simulate
from eefast.data import class_names, encode
from eefast.demo.pipeline import trained
from eefast.demo.tasks import TASKS
from eefast.measure import host, markdown_table, time_interleaved, versions, write_whole
from eefast.policies import Never, Policy
from eefast.traces import keepable
from eefast.training.fine_tune import batches

POLICIES = {
    "eeic": ("eeic", "pabee", "confidence", "budgeted"),
    "berxit": ("berxit", "pabee", "confidence", "budgeted"),
}
MAX_ACCURACY_DROP = 0.005
TIMED = 300
TWEETS = TASKS["tweets"]
FOLDER = Path("build/objectives")
COLUMNS = (
    "objective", "policy", "test accuracy", "layer speed-up", "wall clock vs `Never()`",
    "exits as simulated",
)  # fmt: skip


def main() -> None:
    """Train, calibrate, time and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tweets", type=int, default=8000, help="to train on")
    parser.add_argument("--seed", type=int, default=1, help="of the split and the training")
    parser.add_argument("--page", type=Path, default=Path("docs/objectives.md"))
    options = parser.parse_args()
    tweets = TWEETS.load(options.seed)
    rows: list[list[str]] = []
    for objective, policies in POLICIES.items():
        folder = FOLDER / f"{objective}-{options.tweets}-{options.seed}"
        train = tweets["train"].select(range(options.tweets))
        model, tokenizer = trained(folder, train, TWEETS, options.seed, objective)
        rows += outcomes(objective, policies, model, tokenizer, tweets)
    machine = {**host(), **versions("torch", "transformers", "eefast")}
    text = f"""\
# Two objectives, trained and run

Written by `python -m bench.objectives --tweets {options.tweets}`: EEIC's voting and
BERxiT's learned certainty on MiniLM with six exits, one pass over {options.tweets} of the
demo's tweets (seed {options.seed}). Each policy and fixed depth (`budgeted`) are the
fastest setting that loses at most half a point against the last exit on
{len(tweets["validation"])} validation tweets; accuracy is on {len(tweets["test"])} others.
Where no setting is that good, the most accurate one is shown: a majority of exits that have
learned little is often wrong. Wall clock: batch 1, {TIMED} test tweets, variants
interleaved, ratios of total times; the last column says for how many of them the compiled
model exits where the simulation does. One training each: differences of a point or less are
no ranking.

{markdown_table(COLUMNS, rows)}

{json.dumps(machine)}
"""
    write_whole(options.page, text)


def outcomes(
    objective: str,
    policies: tuple[str, ...],
    model: MultiExitModel,
    tokenizer: PreTrainedTokenizerBase,
    tweets: DatasetDict,
) -> list[list[str]]:
    """A row of the table per policy, and one for the last exit."""
    names = class_names(tweets["train"])
    traces = {
        split: record_trace(
            model,
            batches(encode(tweets[split], tokenizer, names, TWEETS.max_length), tokenizer),
            keep=keepable(model),
            progress=True,
        )
        for split in ("validation", "test")
    }
    chosen: dict[str, Policy] = {
        name: calibrate(name, traces["validation"], max_accuracy_drop=MAX_ACCURACY_DROP)
        for name in policies
    }
    chosen["never"] = Never()
    texts = tweets["test"]["text"][:TIMED]
    inputs: list[dict[str, Any]] = [
        dict(tokenizer(text, truncation=True, max_length=TWEETS.max_length, return_tensors="pt"))
        for text in texts
    ]
    compiled = {name: compile(model, policy) for name, policy in chosen.items()}
    times = time_interleaved(compiled, inputs, progress=True)
    rows = []
    for name, policy in chosen.items():
        outcome = simulate(policy, traces["test"])
        exits = torch.cat([compiled[name](**kwargs).exit_layer for kwargs in inputs])
        same = (exits == outcome.exit_layer[:TIMED]).sum()
        rows.append(
            [
                objective,
                name,
                f"{outcome.accuracy:.3f}",
                f"{outcome.layer_speedup:.2f}x",
                f"{times['never'].total_ms / times[name].total_ms:.2f}x",
                f"{same} of {TIMED}",
            ]
        )
    return rows


if __name__ == "__main__":
    main()
