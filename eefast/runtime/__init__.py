"""Runtimes: how layers and exit steps are driven, and the compiled model around them."""

from eefast.runtime.compiled import CompiledModel, EarlyExitOutput, Runtime, compile

__all__ = ["CompiledModel", "EarlyExitOutput", "Runtime", "compile"]
