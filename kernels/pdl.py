"""Programmatic dependent launch (sm_90 and newer): a kernel may begin before its producer ends."""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def wait_for_producers(PDL: tl.constexpr):
    """Nothing that an earlier kernel wrote may be read before this."""
    if PDL:
        gdc_wait()


@triton.jit
def launch_dependents(PDL: tl.constexpr):
    """From here on the next kernel may begin; it stops at its own wait."""
    if PDL:
        gdc_launch_dependents()
