"""Lowering: from a backbone to one that computes the same faster."""

from eefast.lowering.lower import lower

__all__ = ["lower"]
