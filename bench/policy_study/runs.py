"""Trainings of the study, and the traces that are kept of them.

A training lies in the cache, under its name and a digest of all that it depends on; what was
interrupted goes on from its last checkpoint, what is finished is not done again. Its traces are
also kept as float16 in the checkout, bound to the training by their fingerprint.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, DatasetDict
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerBase

from bench.policy_study.data import DATA
from bench.policy_study.settings import BACKBONES, Study, cache
from bench.policy_study.systems import FIXED
from eefast import MultiExitModel
from eefast.data import class_names, encode
from eefast.demo.pipeline import trained
from eefast.files import whole, write_whole
from eefast.traces import ExitTrace, cached_trace
from eefast.training.fine_tune import batches

SPLITS = ("validation", "test")
LARGEST = 2_000_000  # bytes of a committed trace


@dataclass(frozen=True)
class Run:
    """One training: `eefast.demo.pipeline.Recipe` is what it is to `trained`."""

    study: Study
    objective: str
    seed: int
    layers: int | None = None  # of a model cut to so many

    @property
    def name(self) -> str:
        cut = "" if self.layers is None else f"-{self.layers}L"
        return f"{self.study.name}-{self.objective}{cut}-{self.seed}"

    @property
    def max_length(self) -> int:
        return self.study.training.max_length

    @property
    def epochs(self) -> float:
        return self.study.training.epochs

    @property
    def learning_rate(self) -> float:
        return self.study.training.learning_rate

    def pretrained(self) -> Path:
        """The folder of the model to start from."""
        return BACKBONES[self.study.backbone].pretrained()

    @property
    def options(self) -> dict[str, Any]:
        """What `attach_exits` is asked for: a model that is cut has its last exit alone."""
        exits = {} if self.layers is None else {"exits": [self.layers]}
        return {"readout": self.study.training.readout, **exits}

    @property
    def folder(self) -> Path:
        """In the cache; another recipe is another folder."""
        made_of = {
            "run": self.name,
            "recipe": asdict(self.study.training),
            "options": self.options,
            "torch": version("torch"),
        }
        digest = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
        return cache() / "runs" / f"{self.name}-{digest[:8]}"

    def committed(self, folder: Path, split: str) -> Path:
        """The file of a float16 trace in the folder of what is committed."""
        return folder / "traces" / f"{self.name}.{split}.safetensors"


def runs_of(study: Study, seeds: Iterable[int], objectives: Iterable[str]) -> Iterator[Run]:
    """All trainings of a study: those that all others are compared with come first."""
    objectives = list(dict.fromkeys(objectives))
    for seed in seeds:
        yield from (Run(study, FIXED, seed, layers) for layers in study.layers)
        yield from (Run(study, objective, seed) for objective in objectives)


def train_all(runs: Iterable[Run], folder: Path) -> None:
    """Train what is not trained, and keep the traces of all in `folder`.

    Raises:
        FileNotFoundError: a package is not installed.
        ValueError: a trace is too large to be committed.
    """
    runs, console = list(runs), Console()
    begun, done = time.monotonic(), 0
    for number, run in enumerate(runs, 1):
        where = f"{number} of {len(runs)}: {run.name}"
        if is_kept(run, folder):
            console.print(f"{where} is there", highlight=False)
            continue
        took = f"; {done} took {(time.monotonic() - begun) / 60:.0f} minutes" if done else ""
        console.print(f"{where}{took}", highlight=False)
        keep(run, folder)
        done += 1


def is_kept(run: Run, folder: Path) -> bool:
    """Whether its traces are in the cache, and in `folder` as float16."""
    finished = run.folder / "finished.json"
    if not finished.exists():
        return False
    fingerprints = json.loads(finished.read_text())
    paths = {split: run.committed(folder, split) for split in SPLITS}
    return all(
        path.exists() and fingerprint_in(path) == fingerprints[split]
        for split, path in paths.items()
    )


def keep(run: Run, folder: Path) -> None:
    """Train a model, or load it if it is there, and keep its traces."""
    data = splits_of(run.study.data, run.seed)
    run.folder.mkdir(parents=True, exist_ok=True)
    model, tokenizer = load(run, data["train"])
    fingerprints = {}
    for split in SPLITS:
        table = recorded(run.study, data, split)
        encoded = encode(table, tokenizer, class_names(table), run.max_length)
        path = run.folder / f"{split}.safetensors"
        trace = cached_trace(path, model, batches(encoded, tokenizer), progress=True)
        fingerprints[split] = trace.fingerprint
        committed = run.committed(folder, split)
        if not committed.exists() or fingerprint_in(committed) != trace.fingerprint:
            save_half(path, committed)
    write_whole(run.folder / "finished.json", json.dumps(fingerprints, indent=2) + "\n")


def load(run: Run, train: Dataset) -> tuple[MultiExitModel, PreTrainedTokenizerBase]:
    """The trained model of a run, and its tokenizer."""
    return trained(
        run.folder / "model",
        train,
        run,
        run.seed,
        run.objective,
        layers=run.layers,
        **run.options,
    )


@lru_cache(maxsize=2)
def splits_of(data: str, seed: int) -> DatasetDict:
    """A data set's splits, which many trainings have in common."""
    return DATA[data].load(seed)


def recorded(study: Study, data: DatasetDict, split: str) -> Dataset:
    """The texts of a split that traces are of: the first ones of its random order."""
    limit = getattr(study.training, split)
    texts = len(data[split])
    return data[split].select(range(texts if limit is None else min(limit, texts)))


def save_half(source: Path, path: Path) -> None:
    """Copy a trace: float32 becomes float16, and labels become bytes.

    Raises:
        ValueError: the copy would be larger than what is committed.
    """
    with safe_open(source, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    small = {torch.float32: torch.float16, torch.int64: torch.uint8}
    tensors = {name: t.to(small.get(t.dtype, t.dtype)) for name, t in tensors.items()}
    size = sum(t.numel() * t.element_size() for t in tensors.values())
    if size > LARGEST:
        raise ValueError(
            f"{path.name} would have {size / 1e6:.1f} MB, and {LARGEST / 1e6:.0f} is the limit: "
            "let the traces of this study keep fewer texts (bench/policy_study/settings.py)"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as new:
        save_file(tensors, new, metadata)


def fingerprint_in(path: Path) -> str:
    """Of what a trace in a file was recorded from."""
    with safe_open(path, framework="pt") as file:
        return (file.metadata() or {}).get("fingerprint", "")


def traces_of(run: Run, folder: Path) -> dict[str, ExitTrace]:
    """The committed traces of a run, by split.

    Raises:
        FileNotFoundError: there are none.
    """
    return {split: ExitTrace.load(run.committed(folder, split)) for split in SPLITS}
