"""The ops in Triton, for CUDA and ROCm: `eefast::exit_step.triton` and `similarity_step.triton`.

    policy.py        signals, recurrence and decision of one sample; shared by both heads
    products.py      rows times a weight matrix, over tiles
    pooler.py        dense + tanh, many programs
    exit_step.py     heads of few classes: everything else in one program per row
    lm_exit_step.py  heads of many classes: tiles over the classes, then a merge
    launch.py        which of them run for a call

    similarity_step.py  the other op: one program per row compares two vectors

With TRITON_INTERPRET=1 in the environment before the first import, all of it runs on CPU tensors.
"""

from .launch import launch_exit_step
from .similarity_step import launch_similarity_step

__all__ = ["launch_exit_step", "launch_similarity_step"]
