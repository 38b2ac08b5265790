"""docs/aot.md is of these kernels, of which some are compiled again; none uses local memory."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.aot.compile import compilers, sources
from bench.aot.resources import of_amdgcn
from bench.aot.variants import Variant

ROOT = Path(__file__).parents[2]


PAGE = (ROOT / "docs" / "aot.md").read_text()


def test_the_page_is_of_these_sources():
    """Making it fails where a kernel does not compile, and says where one uses local memory."""
    assert f"sources {sources()}." in PAGE, "run: python -m bench.aot > docs/aot.md"
    assert "is 0 everywhere." in PAGE


def cells():
    """What the page says: (kernel, variant, target) -> text."""
    header, _, *rows = [
        line.strip("| ").split(" | ")
        for line in PAGE.split("## What a kernel takes")[1].splitlines()
        if line.startswith("|")
    ]
    return {
        (kernel, variant, target): cell
        for kernel, variant, *row in rows
        for target, cell in zip(header[2:], row, strict=False)
    }


# Each kernel, and each target once.
AGAIN = {
    "sm_80": "pooler float32 D=768 C=50257 B=1",
    "sm_89": "linear bfloat16 D=768 C=50257 B=1, votes",
    "sm_90": "pooler bfloat16 D=768 C=2 B=1",
    "sm_100": "linear bfloat16 D=768 C=128 B=1, votes, network scorer",
    "sm_120": "linear bfloat16 D=768 C=128 B=1, most-confident",
    "gfx942": "linear bfloat16 D=768 C=127 B=1, row scorer",
}


PROGRAM = f"""
import json
import torch
from bench.aot import nvcc
from bench.aot.compile import cuda_kernels, triton_kernels
from bench.aot.record import recorded_launches
from bench.aot.variants import Variant, variants
from eefast.kernels import launch, launch_exit_step

again = []
for target, name in {AGAIN}.items():
    some = [v for v in variants() if v.name == name]
    for impl, variant, kernel, resources in triton_kernels(target, some):
        again.append([f"{{impl}} {{kernel}}", variant, target, str(resources)])
if nvcc.compiler() is not None:
    for impl, variant, kernel, resources in cuda_kernels("sm_90"):
        again.append([f"{{impl}} {{kernel}}", variant, "sm_90", str(resources)])

with recorded_launches("sm_90") as launches:
    for batch in (1, 2, 16, 17):
        for classes in (2, 300):
            launch_exit_step(*Variant("pooler", torch.bfloat16, 64, classes, batch).arguments())

launch._BLOCK_K_REGISTERS = 128
some = [v for v in variants() if v.width == 767]
print(json.dumps(dict(
    again=again,
    batches=[len(launches), len(set(launched.kernel.hash for launched in launches))],
    spilled=[k.variant for k in triton_kernels("sm_89", some) if k.resources.local_bytes],
)))
"""


@pytest.fixture(scope="module")
def compiled():
    """What PROGRAM says without Triton's interpreter, which these tests otherwise run under."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_some_kernels_compiled_again_are_as_the_page_says(compiled):
    found = compiled["again"]
    assert not [row for row in found if "local" in row[-1]]
    assert {target for _, _, target, _ in found} == set(AGAIN)
    if compilers() not in PAGE:
        pytest.skip(f"docs/aot.md was not made with {compilers()}")
    page = cells()
    for kernel, variant, target, resources in found:
        assert page[kernel, variant, target] == resources


def test_a_spill_is_found(compiled):
    assert any("D=767 C=1001" in variant for variant in compiled["spilled"])


def test_batches_share_their_kernels(compiled):
    """A batch of another size must not compile, least of all in a capture."""
    # Of each size two and three launches; the pooler's kernel is one for both heads.
    assert compiled["batches"] == [20, 4]


def test_the_interpreter_is_refused(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(SystemExit, match="TRITON_INTERPRET=1 is set"):
        runpy.run_module("bench.aot", run_name="__main__")


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
