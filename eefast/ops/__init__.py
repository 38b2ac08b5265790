"""Ops: each has its schema, validation, dispatch and a reference implementation."""

from eefast.ops.exit_step import ExitState, HeadWeights, Impl, exit_step, implementation
from eefast.ops.recurrence import Gain, Keep, Signals, advance, reached, signals
from eefast.ops.step import Step

__all__ = [
    "ExitState",
    "Gain",
    "HeadWeights",
    "Impl",
    "Keep",
    "Signals",
    "Step",
    "advance",
    "exit_step",
    "implementation",
    "reached",
    "signals",
]
