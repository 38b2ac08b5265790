"""Packed linear layers, on every instruction set that runs here, against float64."""

import ctypes
import mmap
import os
import signal
import threading

import pytest
import torch
import torch.nn.functional as F

from eefast.ops import _native  # noqa: F401  (loads the ops)

SETS = torch.ops.eefast.cpp_layer_instruction_sets()
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


@pytest.fixture(params=SETS)
def instruction_set(request):
    before = torch.ops.eefast.cpp_use_layer_instruction_set(request.param)
    yield request.param
    torch.ops.eefast.cpp_use_layer_instruction_set(before)


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


def guarded(tensor):
    """A copy that ends where memory ends."""
    data = tensor.contiguous().view(torch.uint8).flatten()
    pages = -(-max(len(data), 1) // mmap.PAGESIZE)
    memory = mmap.mmap(-1, (pages + 1) * mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    end = pages * mmap.PAGESIZE
    libc = ctypes.CDLL(None, use_errno=True)
    guard = ctypes.c_void_p(address + end)
    assert libc.mprotect(guard, ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    copy = torch.frombuffer(memory, dtype=torch.uint8, count=len(data), offset=end - len(data))
    copy.copy_(data)
    return copy.view(tensor.dtype).view(tensor.shape)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "outputs", "inputs"), [(1, 1, 1), (9, 49, 67), (33, 95, 5)])
def test_nothing_is_read_beyond_the_ends(instruction_set, dtype, rows, outputs, inputs):
    x, weight, bias, residual = case(rows, outputs, inputs)
    packed = pack(guarded(weight), guarded(bias), dtype)
    got = linear(guarded(x), guarded(packed), "silu", guarded(residual))
    assert torch.equal(got, linear(x, packed, "silu", residual))


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


def damaged():
    packed = pack(torch.ones(3, 4), None, "int8")
    packed[16] += 64
    return packed


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: pack(torch.ones(3), None, "int8"), "weight must be"),
        (lambda: pack(torch.ones(3, 4).half(), None, "int8"), "weight must be float32 or"),
        (lambda: pack(torch.ones(3, 4), torch.ones(4), "int8"), r"bias must be \[3\]"),
        (lambda: pack(torch.ones(3, 4), None, "int4"), "dtype must be .* got int4"),
        (lambda: pack(torch.full((3, 4), float("nan")), None, "int8"), "weight must be finite"),
        (lambda: pack(torch.ones(1, 65537), None, "int8"), "inputs must be in 1..65536"),
        (lambda: linear(torch.ones(1, 4), torch.ones(9), "none", None), "packed must be"),
        (lambda: linear(torch.ones(1, 4), damaged(), "none", None), "packed is damaged"),
        (lambda: linear(torch.ones(1, 5), GOOD, "none", None), "x must be"),
        (lambda: linear(torch.ones(1, 4).double(), GOOD, "none", None), "x must be float32"),
        (lambda: linear(torch.ones(1, 4), GOOD, "tanh", None), "activation must be"),
        (lambda: linear(torch.ones(1, 4), GOOD, "none", torch.ones(2, 3)), "residual must be"),
    ],
)
def test_bad_arguments_are_refused(call, words):
    with pytest.raises(RuntimeError, match=words):
        call()


GOOD = pack(torch.ones(3, 4), None, "float32")


def test_an_unknown_instruction_set_is_refused():
    assert "baseline" in SETS
    with pytest.raises(RuntimeError, match="mmx"):
        torch.ops.eefast.cpp_use_layer_instruction_set("mmx")
