"""`evaluate`: a model's policies on labelled texts, on paper and on the clock."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from eefast.data import encode
from eefast.evaluation.full_depth import FullDepth
from eefast.evaluation.result import NEVER, TRANSFORMERS, Evaluation, Row, Timing
from eefast.measure import host, time_interleaved, versions
from eefast.multi_exit import MultiExitModel
from eefast.policies import Budgeted, Never, Policy
from eefast.prediction import longest_text
from eefast.runtime import CompiledModel, compile
from eefast.traces import Simulation, cached_trace, record_trace, simulate
from eefast.training.fine_tune import batches


def evaluate(
    model: MultiExitModel,
    tokenizer: PreTrainedTokenizerBase,
    table: Dataset,
    *,
    policies: Mapping[str, Policy] | None = None,
    max_length: int | None = None,
    timed: int = 500,
    trace: str | Path | None = None,
    progress: bool = False,
) -> Evaluation:
    """Judge policies, every fixed depth, and full depth in eefast and in transformers.

    What they answer is simulated on the trace of all texts. How long they take is measured on the
    CPU, on some of the texts, one at a time, all variants taking turns.

    Args:
        model: on the CPU; put into evaluation mode. Its classes are the labels of `table`.
        tokenizer: of the model.
        table: columns `text` and `label` (see `eefast.data.load_table`).
        policies: by the name that their rows shall have; None: those stored with the model.
        max_length: of a text, in tokens, longer ones are cut; None: what model and tokenizer take.
        timed: how many texts are timed, at most; drawn at random (seed 0).
        trace: file to keep the trace in (see `eefast.traces.cached_trace`); None: it is not kept.
        progress: show progress bars.

    Raises:
        ValueError: an empty table, labels that are not the model's classes, a model that is not
            on the CPU or has no classes, a `max_length` that it does not take, `timed` below 1, or
            a policy that does not fit the model.
    """
    if model.device.type != "cpu":
        raise ValueError(f"model must be on the CPU to be timed, got it on {model.device}")
    if not len(table):
        raise ValueError("table must hold at least one text, got none")
    if timed < 1:
        raise ValueError(f"timed must be 1 or more, got {timed}")
    max_length = longest_text(model, tokenizer, max_length)
    if policies is None:
        stored = {name: model.get_policy(name) for name in model.config.policies}
        policies = {name: policy for name, policy in stored.items() if policy is not None}
    judged: dict[str, Policy] = {
        **policies,
        **{f"exit {k}": Budgeted(k) for k in range(1, model.num_exits)},
        NEVER: Never(),
    }
    compiled = {name: compile(model, policy) for name, policy in judged.items()}

    names: Any = model.config.id2label
    classes = [names[i] for i in range(model.num_classes)]
    data = batches(encode(table, tokenizer, classes, max_length), tokenizer)
    if trace is None:
        keep: Any = ("scores",) if model.heads.scorer is not None else ()
        recorded = record_trace(model, data, keep=keep, progress=progress)
    else:
        recorded = cached_trace(trace, model, data, progress=progress)
    outcomes = {name: simulate(policy, recorded) for name, policy in judged.items()}

    rows = random.Random(0).sample(range(len(table)), min(timed, len(table)))
    inputs = []
    for text in table[rows]["text"]:
        tokens = tokenizer(
            text, truncation=max_length is not None, max_length=max_length, return_tensors="pt"
        )
        inputs.append({name: t for name, t in tokens.items() if name in model.input_names})
    timings = _timings(model, compiled, outcomes, inputs, rows, progress)

    def row(name: str, setting: dict[str, Any] | None, outcome: Simulation) -> Row:
        return Row(
            name,
            setting,
            *_quality(outcome),
            outcome.layer_speedup,
            outcome.cost_speedup,
            outcome.exit_histogram.tolist(),
            timings[name],
        )

    return Evaluation(
        classes,
        len(table),
        len(rows),
        max_length,
        recorded.exit_layers,
        recorded.accuracies().tolist(),
        list(policies),
        [
            *(row(name, policy.to_dict(), outcomes[name]) for name, policy in judged.items()),
            row(TRANSFORMERS, None, outcomes[NEVER]),  # the same layers and the same head
        ],
        {
            "dtype": str(model.dtype).removeprefix("torch."),
            "attention": model.backbone.config._attn_implementation,
            **host(),
            **versions("torch", "transformers", "eefast"),
        },
    )


def _quality(outcome: Simulation) -> tuple[float, float | None, float | None]:
    """Accuracy, F1 and Matthews correlation, see `Row`."""
    values = map(outcome.metric, ("f1", "matthews"))
    f1, matthews = (None if math.isnan(value) else value for value in values)  # JSON has no NaN
    return outcome.accuracy, f1, matthews


def _timings(
    model: MultiExitModel,
    compiled: Mapping[str, CompiledModel],
    outcomes: Mapping[str, Simulation],
    inputs: Sequence[dict[str, Tensor]],
    rows: Sequence[int],
    progress: bool,
) -> dict[str, Timing]:
    """The compiled models and transformers on some of the texts, those in `rows`."""
    full = FullDepth(model, inputs[0])
    met = {
        name: [int(fast(**given).exit_layer) for given in inputs] for name, fast in compiled.items()
    }
    wanted = {name: outcome.exit_layer[rows].tolist() for name, outcome in outcomes.items()}
    # transformers has no exits; its predictions are compared.
    met[TRANSFORMERS] = [int(full.prepared(given)().argmax()) for given in inputs]
    wanted[TRANSFORMERS] = outcomes[NEVER].prediction[rows].tolist()
    times = time_interleaved(
        compiled, inputs, prepared={TRANSFORMERS: full.prepared}, progress=progress
    )
    depth = model.layers.depth
    layers = {name: sum(exits) / len(exits) for name, exits in met.items()}
    layers[TRANSFORMERS] = depth
    return {
        name: Timing(
            layer_speedup=depth / layers[name],
            speedup_vs_never=times[NEVER].total_ms / time.total_ms,
            speedup_vs_transformers=times[TRANSFORMERS].total_ms / time.total_ms,
            p50_ms=time.p50_ms,
            p90_ms=time.p90_ms,
            as_simulated=sum(a == b for a, b in zip(met[name], wanted[name], strict=True)),
        )
        for name, time in times.items()
    }
