"""Every kernel compiles for every target, uses no local memory, and is the one in docs/aot.md."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.aot.compile import compilers
from bench.aot.resources import of_amdgcn
from bench.aot.variants import Variant

ROOT = Path(__file__).parents[2]


def run(*arguments):
    """Python without Triton's interpreter, which these tests otherwise run under."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )


def test_all_kernels_compile_for_all_targets_without_local_memory():
    done = run("-m", "bench.aot")
    assert done.returncode == 0, done.stderr[-2000:]
    committed = (ROOT / "docs" / "aot.md").read_text()
    if compilers() not in committed:
        pytest.skip(f"docs/aot.md was not made with {compilers()}")
    assert done.stdout == committed, "run: python -m bench.aot > docs/aot.md"


def test_a_spill_is_found():
    planted = """
from bench.aot.compile import triton_kernels
from eefast.kernels import launch
launch._BLOCK_K_REGISTERS = 128
print([k.variant for k in triton_kernels("sm_89") if k.resources.local_bytes])
"""
    done = run("-c", planted)
    assert "D=767 C=1001" in done.stdout, done.stderr[-2000:]


def test_batches_share_their_kernels():
    """A batch of another size must not compile, least of all in a capture."""
    program = """
import torch
from bench.aot.record import recorded_launches
from bench.aot.variants import Variant
from eefast.kernels import launch_exit_step
with recorded_launches("sm_90") as launches:
    for batch in (1, 2, 16, 17):
        for classes in (2, 300):
            launch_exit_step(*Variant("pooler", torch.bfloat16, 64, classes, batch).arguments())
print(len(launches), len({launch.kernel.hash for launch in launches}))
"""
    done = run("-c", program)
    # Of each size two and three launches; the pooler's kernel is one for both heads.
    assert done.stdout.split() == ["20", "4"], done.stderr[-2000:]


def test_the_interpreter_is_refused():
    done = subprocess.run(
        [sys.executable, "-m", "bench.aot"],
        cwd=ROOT, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode != 0
    assert "TRITON_INTERPRET" in done.stderr


def test_bytes_are_those_of_the_tensors():
    variant = Variant("pooler", torch.float16, 8, 3, 2)
    hidden, _, pooler, pooler_bias, weight, bias, *_ = variant.arguments()
    weights = sum(t.nbytes for t in (pooler, pooler_bias, weight, bias))
    state = 2 * (12 + 12) + 12 + 1 + 2 * 3 * 4
    assert variant.bytes_moved == weights + hidden[:, 0].nbytes + state
    assert variant.roofline_us("H100") == pytest.approx(variant.bytes_moved / 3.35e12 * 1e6)


def test_an_assembly_listing_without_its_numbers_is_refused():
    with pytest.raises(ValueError, match="vgpr_spill_count"):
        of_amdgcn("s_endpgm", 0)
