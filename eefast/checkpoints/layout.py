"""`Layout`: what a codebase calls the parts of its exits."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple

from eefast.heads import HeadKind


class Heads(NamedTuple):
    """The modules of all exits by their names in the file, first exit first.

    Each is a linear layer: `name.weight` and `name.bias`.
    """

    kind: HeadKind
    poolers: tuple[str, ...]  # one per exit, one shared by all, or none
    classifiers: tuple[str, ...]  # one per layer
    uncertainty: str | None = None  # a learned sigmoid(w x + b) of what the classifiers read
    unused: tuple[str, ...] = ()  # modules that the code saves and that no exit reads


@dataclass(frozen=True)
class Layout:
    """How some codebases name what they save.

    Attributes:
        formats: the codebases. They save the same keys, and the exits compute the same of them.
        mark: matches a key of every file in this layout whose backbone is one of `bases`.
        bases: what the backbone may be called, which is its family.
        heads: given the name of the backbone, its number of layers and the keys of the file.
        twins: a second name under which the code saves the whole backbone once more.
    """

    formats: tuple[str, ...]
    mark: re.Pattern[str]
    bases: tuple[str, ...]
    heads: Callable[[str, int, Collection[str]], Heads]
    twins: str | None = None


def own_pooler(base: str) -> str:
    """The linear layer of the backbone's own pooler, which ALBERT does not call dense."""
    return "albert.pooler" if base == "albert" else f"{base}.pooler.dense"
