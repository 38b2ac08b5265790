"""Builds the emulated device with a kernel, once for each content of what it is made of."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import shutil
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path
from typing import Any

import pybind11

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
KERNEL = ROOT / "csrc/cuda/exit_step.cuh"
BUILD = ROOT / "build/emulation"

FLAGS = "-std=c++17 -O2 -g1 -fPIC -fvisibility=hidden -fno-strict-aliasing -Wall -Wextra"
SANITIZERS = "-fsanitize=address,undefined -fno-sanitize-recover=all"

NINJA = """
flags = {flags} -I{here}/include -I{here} -I{root}/csrc/cuda
rule compile
  command = g++ $more $flags -MMD -MF $out.d -c $in -o $out
  depfile = $out.d
rule link
  command = g++ -shared $more $in -o $out.new && mv $out.new $out
build bindings.{common}.o: compile {here}/bindings.cpp
  more = -isystem {python} -isystem {pybind11}
build device.{common}.{variant}.o: compile {here}/device.cpp
  more = {more}
build {kernel}/run.o: compile {here}/run.cpp
  more = {more} -I{kernel}
build {kernel}/emulation.so: link bindings.{common}.o device.{common}.{variant}.o {kernel}/run.o
  more = {more}
"""


def _digest(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
        digest.update(b"\0")
    return digest.hexdigest()[:16]


@cache
def build(kernel: str | None = None, sanitized: bool = False) -> Path:
    """The library with the text of a kernel instead of exit_step.cuh's, if one is given."""
    kernel = KERNEL.read_text() if kernel is None else kernel
    more = SANITIZERS if sanitized else ""
    headers = [*ROOT.glob("csrc/*.h"), *ROOT.glob("csrc/cuda/*.*h")]
    sources = sorted([*HERE.glob("*.h"), *HERE.glob("*.cpp"), *HERE.glob("include/*"), *headers])
    compiler = subprocess.run(["g++", "--version"], check=True, capture_output=True).stdout
    common = _digest(
        NINJA, FLAGS, compiler, sys.version, pybind11.__version__,
        *(source.read_bytes() for source in sources),
    )  # fmt: skip
    directory = _digest(common, more, kernel)
    library = BUILD / directory / "emulation.so"
    BUILD.mkdir(parents=True, exist_ok=True)
    # One ninja at a time, for tests run in several processes.
    with open(BUILD / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not library.exists():
            library.parent.mkdir(exist_ok=True)
            (library.parent / "exit_step.cuh").write_text(kernel)
            rules = NINJA.format(
                flags=FLAGS, here=HERE, root=ROOT, more=more, common=common, kernel=directory,
                variant="sanitized" if sanitized else "plain",
                python=sysconfig.get_path("include"), pybind11=pybind11.get_include(),
            )  # fmt: skip
            (BUILD / "build.ninja").write_text(rules)
            ninja = shutil.which("ninja") or str(Path(sys.executable).with_name("ninja"))
            done = subprocess.run([ninja, "-C", BUILD], capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"the emulation does not build:\n{done.stdout}{done.stderr}")
    return library


@cache
def load(kernel: str | None = None) -> Any:
    """The library as a Python module."""
    library = build(kernel)
    # pybind11 remembers modules by their names.
    name = f"{library.parent.name}.emulation"
    spec = importlib.util.spec_from_file_location(name, library)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
