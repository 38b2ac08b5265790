"""The demo: from real weights and real tweets to wall-clock speed-up, in one command."""

from eefast.demo.pipeline import run_demo

__all__ = ["run_demo"]
