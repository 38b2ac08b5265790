"""Lengths to which sequences are padded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eefast.runtime.graph.buckets import LengthBuckets


def test_the_default_is_powers_of_two_and_what_lies_half_way():
    buckets = LengthBuckets(None, 512)
    met = sorted({buckets.bucket(length) for length in range(1, 513)})
    assert met == [16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512]


@given(st.integers(16, 5000))
def test_at_most_a_third_is_padding(length):
    bucket = LengthBuckets(None, None).bucket(length)
    assert length <= bucket
    assert 3 * (bucket - length) <= bucket


def test_no_bucket_is_longer_than_the_model_takes():
    buckets = LengthBuckets(None, 40)
    assert buckets.bucket(33) == 40
    assert buckets.bucket(40) == 40
    assert LengthBuckets(None, 7).bucket(1) == 7


def test_lengths_of_one_s_own():
    buckets = LengthBuckets([8, 20], 40)
    assert [buckets.bucket(length) for length in (1, 8, 9, 20)] == [8, 8, 20, 20]
    with pytest.raises(ValueError, match=r"got 21 tokens per sequence.* is 20"):
        buckets.bucket(21)


@pytest.mark.parametrize("lengths", [[], [0, 4], [8, 4], [4, 4]])
def test_lengths_must_ascend(lengths):
    with pytest.raises(ValueError, match="length_buckets must be ascending, from 1 up; got"):
        LengthBuckets(lengths, 40)


def test_lengths_must_fit_the_model():
    with pytest.raises(ValueError, match=r"must end by 40.*got \[8, 41\]"):
        LengthBuckets([8, 41], 40)


@pytest.mark.parametrize("lengths", [[8.5], 8, "ab", iter([8])])
def test_lengths_must_be_whole_numbers(lengths):
    with pytest.raises(TypeError, match="length_buckets must be a list of whole numbers"):
        LengthBuckets(lengths, 40)
