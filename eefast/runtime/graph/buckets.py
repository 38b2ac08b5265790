"""Length buckets: sequences are padded up to one of a few lengths, each captured once."""

from __future__ import annotations

import itertools
import operator
from bisect import bisect_left
from collections.abc import Iterator, Sequence


class LengthBuckets:
    """The lengths to which sequences are padded.

    By default 16, 24, 32, 48, 64, 96, 128, ... up to the model's longest: powers of two and what
    lies half-way, so that at most a third of a padded sequence is padding from 16 tokens on.

    Args:
        lengths: ascending, from 1 up; None: the default.
        longest: the longest sequence that the model takes; None: any length.

    Raises:
        ValueError: lengths that are not ascending, or beyond `longest`.
        TypeError: lengths that are not whole numbers.
    """

    def __init__(self, lengths: Sequence[int] | None, longest: int | None) -> None:
        self._given: list[int] | None = None
        self._longest = longest
        if lengths is None:
            return
        try:
            if not isinstance(lengths, Sequence):  # an iterator could be read only once
                raise TypeError
            self._given = [operator.index(length) for length in lengths]
        except TypeError:
            raise TypeError(
                f"length_buckets must be a list of whole numbers, got {lengths!r}"
            ) from None
        if not self._given or self._given != sorted(set(self._given)) or self._given[0] < 1:
            raise ValueError(f"length_buckets must be ascending, from 1 up; got {lengths!r}")
        if longest is not None and self._given[-1] > longest:
            raise ValueError(
                f"length_buckets must end by {longest}, the longest sequence that the "
                f"model takes; got {lengths!r}"
            )

    def bucket(self, length: int) -> int:
        """The length to which a sequence of `length` tokens (which the model takes) is padded.

        Raises:
            ValueError: longer than the longest bucket given.
        """
        if self._given is None:
            bucket = next(bucket for bucket in _defaults() if bucket >= length)
            return bucket if self._longest is None else min(bucket, self._longest)
        at = bisect_left(self._given, length)
        if at == len(self._given):
            raise ValueError(
                f"got {length} tokens per sequence; the longest of length_buckets is "
                f"{self._given[-1]}"
            )
        return self._given[at]


def _defaults() -> Iterator[int]:
    for power in itertools.count(4):
        yield 1 << power
        yield 3 << (power - 1)
