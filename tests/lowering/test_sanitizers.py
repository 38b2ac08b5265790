"""`make sanitize` sees what it is there for: mistakes that are made on purpose end a process."""

from __future__ import annotations

import ctypes
import faulthandler
import os

import pytest
import torch
from torch import Tensor

from ..guards import in_a_child

pytestmark = pytest.mark.skipif("EEFAST_SANITIZE" not in os.environ, reason="for make sanitize")
FLOATS = 12  # of a weight [3, 4]


def one_missing() -> Tensor:
    """Says that it has one number more than was allocated."""
    malloc = ctypes.CDLL(None).malloc
    malloc.restype = ctypes.c_void_p
    numbers = (ctypes.c_float * FLOATS).from_address(malloc(4 * FLOATS - 4))
    return torch.frombuffer(numbers, dtype=torch.float32)


def misaligned() -> Tensor:
    return torch.frombuffer(bytearray(4 * FLOATS + 1), dtype=torch.float32, offset=1)


@pytest.mark.parametrize(
    ("plant", "report"),
    [(one_missing, "heap-buffer-overflow"), (misaligned, "load of misaligned address")],
)
def test_what_is_planted_is_reported(capfd, plant, report):
    def body() -> None:
        faulthandler.disable()
        torch.ops.eefast.pack_linear(plant().view(3, 4), None, "int8")

    end = in_a_child(body)
    seen = capfd.readouterr().err
    assert end == "by SIGABRT", f"the sanitizers are not loaded: ended {end}"
    assert report in seen
    assert "pack_int8" in seen
