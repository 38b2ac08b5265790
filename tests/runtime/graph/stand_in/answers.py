"""Samples that exit at every exit, and what a call should answer for each."""

from functools import cache

import torch

from eefast.policies import Confidence
from tests.models import inputs_for, tiny_model
from tests.runtime.graph.stand_in.driver import eager

MIXED = Confidence(0.6)
SAMPLES = 24


@cache
def model():
    return tiny_model()


@cache
def samples():
    """One by one: some of them exit at every exit."""
    together = inputs_for(model(), SAMPLES, padded=True)
    return [{name: value[n : n + 1] for name, value in together.items()} for n in range(SAMPLES)]


def assert_same(ours, theirs):
    for name, mine, yours in zip(ours._fields, ours, theirs, strict=True):
        assert mine is yours or torch.equal(mine, yours), name


def same(ours, theirs):
    return all(a is b or torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@cache
def wanted():
    return [eager(model(), MIXED, inputs) for inputs in samples()]
