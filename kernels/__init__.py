"""The exit step in Triton, for CUDA and ROCm: `eefast::exit_step.triton`.

    policy.py        signals, recurrence and decision of one sample; shared by both heads
    products.py      rows times a weight matrix, over tiles
    pooler.py        dense + tanh, many programs
    exit_step.py     heads of few classes: everything else in one program per row
    lm_exit_step.py  heads of many classes: tiles over the classes, then a merge
    launch.py        which of them run for a call

With TRITON_INTERPRET=1 in the environment before the first import, all of it runs on CPU tensors.
"""

from .launch import launch_exit_step

__all__ = ["launch_exit_step"]
