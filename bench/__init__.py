"""Microbenchmarks and studies, thin on top of `eefast.measure`."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
"""Of the checkout."""
