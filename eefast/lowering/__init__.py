"""Lowering: from a backbone to one that computes the same faster."""

from eefast.lowering.families import program_of
from eefast.lowering.lower import lower
from eefast.lowering.program import NotLowered, Program

__all__ = ["NotLowered", "Program", "lower", "program_of"]
