"""Packed linear layers, on every instruction set that runs here, against float64."""

import os
import signal
import threading

import pytest
import torch
import torch.nn.functional as F

from eefast.ops import _native  # noqa: F401  (loads the ops)

from .conftest import SETS

DTYPES = ["float32", "bfloat16", "int8"]
pack, linear = torch.ops.eefast.pack_linear, torch.ops.eefast.packed_linear
ACTIVATIONS = {
    "none": lambda x: x,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}
EPS = 2.0**-24


def case(rows, outputs, inputs):
    generator = torch.Generator().manual_seed(rows * 10007 + outputs * 101 + inputs)
    shapes = [(rows, inputs), (outputs, inputs), (outputs,), (rows, outputs)]
    return [torch.randn(shape, generator=generator) for shape in shapes]


def quantised_rows(x):
    """What panels.h writes down, in PyTorch."""
    low, high = x.amin(1).clamp(max=0), x.amax(1).clamp(min=0)
    scale = high / 255 - low / 255
    inverse = 1 / scale
    zero = torch.round(-low * inverse)
    q = (torch.round(x * inverse[:, None]) + zero[:, None]).clamp(0, 255)
    return q.double() - zero[:, None].double(), scale.double()


def exact(dtype, x, weight, bias):
    """x W^T + bias in float64, and a bound of the error of fp32 sums.

    A sum of K products in fp32, in any order, has an error of at most (K + 1) eps times the sum of
    magnitudes; vdpbf16ps rounds twice a pair, which is no more. An int8 sum is exact.
    """
    if dtype == "int8":
        a, row_scale = quantised_rows(x)
        scale = weight.abs().amax(1) / 127
        b = torch.round(weight / scale[:, None]).clamp(-127, 127).double()
        sums = (a @ b.T) * (row_scale[:, None] * scale.double())
        return sums + bias.double(), 6 * EPS * (sums.abs() + bias.abs())
    if dtype == "bfloat16":
        x, weight = x.bfloat16(), weight.bfloat16()
    x, weight, bias = x.double(), weight.double(), bias.double()
    magnitudes = x.abs() @ weight.abs().T + bias.abs()
    return x @ weight.T + bias, (x.shape[1] + 3) * EPS * magnitudes


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("rows", "outputs", "inputs"),
    [
        (1, 1, 1),
        (7, 47, 3),
        (8, 48, 64),
        (9, 49, 65),
        (33, 97, 130),
        (50, 96, 1024),
        (130, 200, 31),
    ],
)
def test_against_float64(instruction_set, dtype, rows, outputs, inputs):
    x, weight, bias, _ = case(rows, outputs, inputs)
    got = linear(x, pack(weight, bias, dtype), "none", None)
    want, budget = exact(dtype, x, weight, bias)
    assert ((got - want).abs() <= budget).all()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_and_residual(instruction_set, name):
    x = torch.cat([torch.linspace(-20, 20, 8001), torch.tensor([-1e30, 1e30, 1e-30, 90, -90])])
    packed = pack(torch.ones(1, 1), None, "float32")
    got = linear(x[:, None], packed, name, None)[:, 0]
    error = (got - ACTIVATIONS[name](x.double())).abs()
    assert (error <= 3e-7 * x.abs()).all()
    y = torch.randn(len(x), 1)
    assert torch.equal(linear(x[:, None], packed, name, y)[:, 0], got + y[:, 0])
    limits = linear(torch.tensor([[float("inf")], [float("nan")]]), packed, name, None)
    assert limits[0] == float("inf")
    assert limits[1].isnan()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_does_not_know_the_others(instruction_set, dtype):
    x, weight, bias, residual = case(41, 100, 70)
    packed = pack(weight, bias, dtype)
    together = linear(x, packed, "none", residual)
    for r in (0, 7, 8, 15, 16, 31, 32, 40):
        alone = linear(x[r : r + 1], packed, "none", residual[r : r + 1])
        assert torch.equal(alone[0], together[r])
    x[3, 5], x[20, 0] = float("nan"), float("inf")
    strange = linear(x, packed, "none", residual)
    others = torch.tensor([r not in (3, 20) for r in range(len(x))])
    assert torch.equal(strange[others], together[others])
    assert strange[3].isnan().all()
    assert not strange[20].isfinite().any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_rows_and_zeros(instruction_set, dtype):
    _, weight, bias, _ = case(1, 50, 20)
    packed = pack(weight, bias, dtype)
    assert linear(torch.zeros(0, 20), packed, "gelu", None).shape == (0, 50)
    assert torch.equal(linear(torch.zeros(2, 20), packed, "none", None), bias.expand(2, 50))


def test_threads_and_a_fork():
    x, weight, bias, _ = case(64, 480, 256)
    packed = [pack(weight, bias, dtype) for dtype in DTYPES]
    want = [linear(x, p, "gelu", None) for p in packed]
    wrong = []

    def call():
        for _ in range(20):
            for p, w in zip(packed, want, strict=True):
                if not torch.equal(linear(x, p, "gelu", None), w):
                    wrong.append(p)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong

    child = os.fork()
    if child == 0:
        signal.alarm(20)
        call()
        os._exit(len(wrong))
    assert os.waitpid(child, 0)[1] == 0


GOOD = pack(torch.ones(3, 4), None, "float32")
ONE = torch.ones(1, 1)
HUGE = 3 << 61  # outputs whose bytes, counted in 64 bits, are none


def altered(packed, **header):
    """A copy with other numbers in its header; see packed.h."""
    packed = packed.clone()
    for name, value in header.items():
        if name == "packing":
            packed[8:12].view(torch.int32)[0] = value
        else:
            packed[16:40].view(torch.int64)[("outputs", "inputs", "bytes").index(name)] = value
    return packed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((torch.ones(3), None, "int8"), "weight must be .* got 1 dimensions"),
        ((torch.ones(0, 4), None, "int8"), "weight must be .* both at least 1"),
        ((torch.ones(3, 0), None, "int8"), "weight must be .* both at least 1"),
        ((torch.ones(3, 4).half(), None, "int8"), "weight must be float32 or bfloat16; got Half"),
        ((ONE.expand(1 << 31, 1), torch.ones(2), "float32"), "outputs must be in 1..2147483647"),
        ((ONE.expand(1, 1 << 31), torch.ones(2), "float32"), "inputs must be in 1..2147483647"),
        ((torch.ones(1, 65537), None, "int8"), "inputs must be in 1..65536"),
        ((torch.ones(3, 4), torch.ones(4), "int8"), r"bias must be \[3\]"),
        ((torch.ones(3, 4), torch.ones(3, 1), "int8"), r"bias must be \[3\]; got 2 dimensions"),
        ((torch.ones(3, 4), torch.ones(3).half(), "int8"), "bias must be float32 or"),
        ((torch.ones(3, 4), None, "int4"), "dtype must be .* got int4"),
        ((torch.full((3, 4), torch.nan), None, "int8"), "weight must be finite"),
        ((torch.full((3, 4), torch.inf), None, "int8"), "weight must be finite"),
    ],
)
def test_what_cannot_be_packed_is_refused(arguments, words):
    with pytest.raises(RuntimeError, match=words):
        pack(*arguments)


@pytest.mark.parametrize(
    ("packed", "words"),
    [
        (GOOD.view(torch.float32), "packed must be what"),
        (GOOD[None], "packed must be what"),
        (torch.cat([GOOD, GOOD])[::2], "packed must be what"),
        (GOOD[:63], "packed must be what"),
        (torch.zeros_like(GOOD), "packed must be what"),
        (GOOD[:-1], "packed is damaged"),
        (altered(GOOD, outputs=49), "packed is damaged"),
        # Each of these has as many bytes as such numbers would need.
        (altered(pack(torch.ones(3, 4), None, "bfloat16"), packing=3), "packed is damaged"),
        (altered(pack(torch.ones(3, 4), None, "bfloat16"), packing=-1), "packed is damaged"),
        (altered(GOOD[:64], outputs=0, bytes=64), "packed is damaged"),
        (altered(GOOD[:256], inputs=0, bytes=256), "packed is damaged"),
        (altered(GOOD[:64], outputs=HUGE, inputs=1, bytes=64), "packed is damaged"),
        (altered(GOOD[:256], inputs=1 << 62, bytes=256), "packed is damaged"),
    ],
)
def test_what_pack_linear_did_not_make_is_refused(packed, words):
    with pytest.raises(RuntimeError, match=words):
        linear(torch.ones(1, 4), packed, "none", None)


@pytest.mark.parametrize(
    ("x", "activation", "residual", "words"),
    [
        (torch.ones(1, 5), "none", None, r"x must be float32 \[rows, 4\]"),
        (torch.ones(1, 4, dtype=torch.int32), "none", None, "x must be .* got Int "),
        (torch.ones(1, 4, 1), "none", None, "x must be .* got Float with 3 dimensions"),
        (torch.ones(4, 4).T, "none", None, "x must be .* contiguous"),
        (torch.ones(2, 4), "none", torch.ones(1, 3), r"residual must be float32 \[2, 3\]"),
        (torch.ones(1, 4), "none", torch.ones(1, 4), r"residual must be float32 \[1, 3\]"),
        (torch.ones(1, 4), "tanh", None, "activation must be .* got tanh"),
    ],
)
def test_bad_operands_are_refused(x, activation, residual, words):
    with pytest.raises(RuntimeError, match=words):
        linear(x, GOOD, activation, residual)


def test_an_unknown_instruction_set_is_refused():
    assert "baseline" in SETS
    with pytest.raises(RuntimeError, match="mmx"):
        torch.ops.eefast.cpp_use_layer_instruction_set("mmx")
