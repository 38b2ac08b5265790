"""No kernel reads or writes beyond its buffers, whose ends are guard pages.

They are the arguments and results of ops, packed weights, and the parts of a call's memory. What
is not written yet is NaN, so that reading it shows, too.
"""

from __future__ import annotations

import ctypes
import faulthandler
import itertools
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import eefast
from eefast.backbones import backbone_for
from eefast.lowering import PRECISIONS
from eefast.policies import Never

from ..backbones.families import build
from ..guards import guarded, guards, in_a_child
from ..models import inputs_for, tiny_model
from ..runtime.test_direct import POLICIES
from .test_linear import case
from .test_packed import packed
from .test_program import tokens
from .test_shapes import ODD

LINEARS = [(1, 1, 1), (9, 49, 67), (33, 95, 5)]  # rows, outputs and inputs


def say(*case: object) -> None:
    print(*case, file=sys.stderr, flush=True)


def assert_within(results: Callable[[], list[Tensor]]) -> None:
    """Whether the same results come with guards, in a process that may end there."""

    @torch.no_grad()
    def body() -> None:
        want = results()
        with guards():
            got = results()
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))

    end = in_a_child(body)
    assert end == "well", f"ended {end}, in the last case on stderr"


@pytest.mark.parametrize("precision", PRECISIONS)
def test_layers(instruction_set, precision):
    models = {name: backbone_for(build(name, **shape)) for name, shape in ODD.items()}

    def results() -> list[Tensor]:
        states = []
        for name, model in models.items():
            layers = packed(model, precision)
            for length in (1, 2, 15, 17):
                say(instruction_set, precision, name, length)
                hidden, context = layers.start(tokens(3, length, "right"))
                states.append(layers.run(range(1, layers.depth + 1), hidden, context))
        return states

    assert_within(results)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_linear_layers(instruction_set, precision):
    def results() -> list[Tensor]:
        outs = []
        for rows, outputs, inputs in LINEARS:
            say(instruction_set, precision, rows, outputs, inputs)
            x, weight, bias, residual = case(rows, outputs, inputs)
            packed_weight = torch.ops.eefast.pack_linear(weight, bias, precision)
            outs.append(torch.ops.eefast.packed_linear(x, packed_weight, "silu", residual))
        return outs

    assert_within(results)


@pytest.mark.parametrize(
    "options",
    [{"head": "linear"}, {"head": "pooler", "cascade": True}, {"readout": "mean"}],
)
def test_embeddings_and_exits(options):
    model = tiny_model(**options)
    fast = eefast.compile(model, Never(), dtype="float32")

    def results() -> list[Tensor]:
        answers = []
        for fast.policy, batch in itertools.product(POLICIES, (1, 7)):
            say(fast.policy, batch)
            answers += fast(**inputs_for(model, batch, seed=batch, padded=True)).values()
        return answers

    assert_within(results)


def test_guards_end_a_process():
    """Those of arguments, packed buffers and results; the byte before them may be read."""

    def read(which: int, beyond: int) -> None:
        faulthandler.disable()
        argument = guarded(torch.ones(3, 5))
        with guards():
            packed = torch.ops.eefast.pack_linear(argument, None, "int8")
            out = torch.ops.eefast.packed_linear(torch.ones(1, 5), packed, "none", None)
        tensor = (argument, packed, out)[which]
        ctypes.string_at(tensor.data_ptr() + tensor.nbytes - 1 + beyond, 1)

    for which in range(3):
        assert in_a_child(lambda i=which: read(i, 0)) == "well"
        assert in_a_child(lambda i=which: read(i, 1)).startswith("by SIG")
