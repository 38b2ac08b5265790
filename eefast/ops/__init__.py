"""Ops: each has its schema, validation, dispatch and a reference implementation."""

from eefast.ops._native import has_cuda
from eefast.ops.exit_step import exit_step
from eefast.ops.implementations import Impl, implementation, is_cpp, sets_conditionals
from eefast.ops.kinds import Accumulate, Gain, Keep, ScorerKind
from eefast.ops.recurrence import Outcome, Recurrence, Values, advance, reached
from eefast.ops.signals import Signals, signals
from eefast.ops.similarity_step import similarity_step
from eefast.ops.state import ExitState, HeadWeights, PackedState, SimilarityState
from eefast.ops.step import Step

__all__ = [
    "Accumulate",
    "ExitState",
    "Gain",
    "HeadWeights",
    "Impl",
    "Keep",
    "Outcome",
    "PackedState",
    "Recurrence",
    "ScorerKind",
    "Signals",
    "SimilarityState",
    "Step",
    "Values",
    "advance",
    "exit_step",
    "has_cuda",
    "implementation",
    "is_cpp",
    "reached",
    "sets_conditionals",
    "signals",
    "similarity_step",
]
