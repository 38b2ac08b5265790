"""What calibration expects of the policy that it chose."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eefast.policies.values import number, whole


@dataclass(frozen=True, repr=False)
class Expected:
    """Accuracy and layer speed-up of a policy on the trace it was calibrated on.

    The intervals are 95 % bootstrap intervals (percentiles): what other samples of the same size
    and kind would give the same policy. They do not cover the optimism of having chosen the policy
    on the same data: to judge it, simulate it on data that calibration has not seen.

    Args:
        accuracy: share of samples answered as labelled.
        accuracy_interval: its lower and upper end.
        layer_speedup: layers at full depth over layers run.
        layer_speedup_interval: its lower and upper end.
        samples: in the trace.

    Raises:
        ValueError: something else than such numbers.
    """

    accuracy: float
    accuracy_interval: tuple[float, float]
    layer_speedup: float
    layer_speedup_interval: tuple[float, float]
    samples: int

    def __post_init__(self) -> None:
        number("expected", "accuracy", self.accuracy, 0, 1)
        number("expected", "layer_speedup", self.layer_speedup, 0)
        whole("expected", "samples", self.samples, 1)
        for name in ("accuracy_interval", "layer_speedup_interval"):
            ends = getattr(self, name)
            if not isinstance(ends, (tuple, list)) or len(ends) != 2:
                raise ValueError(f"expected: {name} must be two numbers, got {ends!r}")
            ends = tuple(number("expected", name, end, 0) for end in ends)
            object.__setattr__(self, name, ends)

    def __repr__(self) -> str:
        return (
            f"Expected(accuracy {_with_interval(self.accuracy, self.accuracy_interval, 3)}, "
            f"layer speed-up {_with_interval(self.layer_speedup, self.layer_speedup_interval, 2)}, "
            f"{self.samples} samples)"
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it, read back by `from_dict`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, description: Any) -> Expected:
        """What `to_dict` described.

        Raises:
            ValueError: it describes something else.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(description, Mapping) or description.keys() != names:
            raise ValueError(f"expected must hold {sorted(names)}, got {description!r}")
        return cls(**description)


def _with_interval(value: float, ends: tuple[float, float], digits: int) -> str:
    low, high = ends
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
