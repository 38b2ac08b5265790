"""Runtimes: how layers and exit steps are driven, and the compiled model around them."""

from eefast.runtime.apart import parts
from eefast.runtime.compiled import CompiledModel
from eefast.runtime.compiling import compile
from eefast.runtime.output import EarlyExitOutput
from eefast.runtime.protocol import Runtime
from eefast.runtime.stats import CallStats, RuntimeStats

__all__ = [
    "CallStats",
    "CompiledModel",
    "EarlyExitOutput",
    "Runtime",
    "RuntimeStats",
    "compile",
    "parts",
]
