"""Ops: each has its schema, validation, dispatch and a reference implementation."""

from eefast.ops.exit_step import exit_step
from eefast.ops.implementations import Impl, implementation
from eefast.ops.recurrence import Gain, Keep, Signals, advance, reached, signals
from eefast.ops.state import ExitState, HeadWeights
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
