"""What a compiled kernel takes of a processor, read off its binary."""

from __future__ import annotations

import re
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

import triton

_CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


class Resources(NamedTuple):
    """Of one kernel; registers and local memory are per thread."""

    registers: int
    local_bytes: int  # spilled registers and arrays that did not fit: must be 0
    shared_bytes: int
    instructions: int

    def __str__(self) -> str:
        local = f" **local {self.local_bytes}**" if self.local_bytes else ""
        return f"{self.registers} / {self.shared_bytes} / {self.instructions}{local}"


@cache
def of_cubin(cubin: bytes, dynamic_shared: int = 0) -> dict[str, Resources]:
    """Of each kernel in an NVIDIA binary, by its name.

    Args:
        cubin: the binary.
        dynamic_shared: bytes of shared memory that the launch adds.
    """
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage, code = (_cuobjdump(option, file.name) for option in ("-res-usage", "-sass"))
    # "Function : name" begins the code of a kernel, a hexadecimal address each instruction.
    instructions = {
        part.split(maxsplit=1)[0]: part for part in re.split(r"Function : (?=\S)", code)[1:]
    }
    found = {}
    for name, numbers in re.findall(r"Function (\S+?):\s*\n\s*(REG:.*)", usage):
        of = {key: int(number) for key, number in re.findall(r"(\w+):(\d+)", numbers)}
        sass = instructions[name]
        found[name] = Resources(
            of["REG"],
            # The stack is where spills go; LOCAL is what cuobjdump calls arrays.
            of["STACK"] + of["LOCAL"] + 4 * len(re.findall(r"\b(?:STL|LDL)\b", sass)),
            of["SHARED"] + dynamic_shared,
            len(re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+\S", sass, re.MULTILINE)),
        )
    return found


def of_amdgcn(assembly: str, dynamic_shared: int) -> Resources:
    """Of the one kernel in an AMD assembly listing."""

    def field(name: str) -> int:
        found = re.search(rf"\.{name}:\s+(\d+)", assembly)
        if found is None:
            raise ValueError(f"assembly: no field .{name}")
        return int(found[1])

    spilled = 4 * (field("vgpr_spill_count") + field("sgpr_spill_count"))
    body = assembly[: assembly.index(".section\t.rodata")]
    return Resources(
        field("vgpr_count"),
        field("private_segment_fixed_size") + spilled,
        field("group_segment_fixed_size") + dynamic_shared,
        len(re.findall(r"^\t[svdbfgi]\w*_\w+", body, re.MULTILINE)),
    )


def _cuobjdump(option: str, path: str) -> str:
    done = subprocess.run([_CUOBJDUMP, option, path], capture_output=True, text=True, check=True)
    return done.stdout
