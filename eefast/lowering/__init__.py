"""Lowering: from a backbone to one that computes the same faster."""

from eefast.lowering.families import program_of
from eefast.lowering.packed import (
    PRECISIONS,
    PackedBackbone,
    PackedContext,
    PackedLayers,
    PackedReadout,
    Precision,
    pack,
)
from eefast.lowering.program import NotLowered, Program

__all__ = [
    "PRECISIONS",
    "NotLowered",
    "PackedBackbone",
    "PackedContext",
    "PackedLayers",
    "PackedReadout",
    "Precision",
    "Program",
    "pack",
    "program_of",
]
