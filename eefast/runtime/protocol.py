"""`Runtime`: what every way to drive a backbone has in common."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from eefast.backbones import Backbone, Inputs
from eefast.ops import ExitState, Impl
from eefast.runtime.plan import Plan
from eefast.runtime.stats import RuntimeStats


class Runtime(Protocol):
    """Drives the layers and exit steps of calls; several threads may call at once.

    Args:
        backbone: whose layers are driven.
        num_classes: C.
        impl: implementation of the exit step.
        **options: those named in `options`.

    Raises:
        ValueError, TypeError, RuntimeError: as `eefast.ops.implementation`, or an option that does
            not fit.

    Attributes:
        device_type: where it runs; None: anywhere.
        options: the names of its options.
    """

    device_type: ClassVar[str | None]
    options: ClassVar[frozenset[str]]

    def __init__(
        self, backbone: Backbone, num_classes: int, impl: Impl, **options: Any
    ) -> None: ...

    def run(self, plan: Plan, inputs: Inputs, stats: RuntimeStats | None = None) -> ExitState:
        """One call: all layers that a sample needs, and the exits behind them.

        Args:
            plan: the policy's plan for this backbone.
            inputs: what the model is called with, on its device.
            stats: gets one entry, if given.

        Returns:
            What the exits wrote, in the caller's order.

        Raises:
            ValueError: inputs that the backbone cannot take.
        """

    def close(self) -> None:
        """Wait for the calls under way and give up what is held for calls to come."""
