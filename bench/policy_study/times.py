"""Wall clock of a few systems and of -kL, in packed int8 layers: trained models of the cache."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from bench.policy_study.results import MAX_ACCURACY_DROP
from bench.policy_study.runs import Run, load, recorded, splits_of
from bench.policy_study.settings import Study
from bench.policy_study.systems import FIXED, SYSTEMS, Calibrator
from eefast import compile
from eefast.data import class_names, encode
from eefast.measure import host, time_interleaved, versions
from eefast.policies import Never, Policy
from eefast.runtime import CompiledModel
from eefast.traces import ExitTrace
from eefast.training.fine_tune import is_finished

TIMED_SYSTEMS = ("BEEM-A", "BEEM-C", "PABEE", "PCEE", "Shallow-Deep", "ElasticBERT")
TIMED_TEXTS = 200
DTYPE = "int8"


def timed(studies: list[Study]) -> dict[str, Any]:
    """One training each: the first seed of every study whose models are there."""
    return {
        "studies": {study.name: found for study in studies if (found := of_study(study))},
        "environment": {
            "dtype": DTYPE,
            "timed": TIMED_TEXTS,
            **host(),
            **versions("torch", "transformers", "eefast"),
        },
    }


def of_study(study: Study) -> dict[str, dict[str, float]]:
    """By system, accuracy and mean layer of all test texts, and milliseconds of some.

    Policies are calibrated on traces of the models' own layers; accuracy is that of packed ones.
    """
    data = splits_of(study.data, study.seeds[0])
    test = recorded(study, data, "test")
    compiled: dict[str, CompiledModel] = {}
    inputs: list[dict[str, Tensor]] = []
    for name, run, policy in _rows(study):
        model, tokenizer = load(run, data["train"])
        compiled[name] = compile(model, policy, dtype=DTYPE)
        if not inputs:
            encoded = encode(test, tokenizer, class_names(test), run.max_length)
            inputs = [{"input_ids": torch.tensor(row)[None]} for row in encoded["input_ids"]]
    labels = torch.tensor(test["label"])
    some = random.Random(0).sample(inputs, min(TIMED_TEXTS, len(inputs)))
    latencies = time_interleaved(compiled, some, progress=True) if compiled else {}
    found = {}
    for name, fast in compiled.items():
        outputs = [fast(**one) for one in inputs]
        right = torch.cat([output.prediction for output in outputs]) == labels
        layers = torch.cat([output.exit_layer for output in outputs])
        found[name] = {
            "accuracy": float(right.double().mean()),
            "layers": float(layers.double().mean()),
            "p50_ms": latencies[name].p50_ms,
            "mean_ms": latencies[name].total_ms / len(some),
        }
    return found


def _rows(study: Study) -> Iterator[tuple[str, Run, Policy]]:
    """What can be timed: -kL, and systems with their settings by the rule."""
    seed = study.seeds[0]
    for layers in study.layers:
        run = Run(study, FIXED, seed, layers)
        if is_finished(run.folder / "model"):
            yield cut_to(layers), run, Never()
    for system in SYSTEMS:
        run = Run(study, system.objective, seed)
        if system.name in TIMED_SYSTEMS and is_finished(run.folder / "model"):
            validation = ExitTrace.load(run.folder / "validation.safetensors")
            policy = Calibrator(system, validation).to(max_accuracy_drop=MAX_ACCURACY_DROP)
            assert policy is not None  # only a speed-up can be out of reach
            yield system.name, run, policy


def cut_to(layers: int) -> str:
    """The name of -kL."""
    return f"-{layers}L"


def is_cut(name: str) -> bool:
    """Whether a row is -kL."""
    return name.startswith("-")
