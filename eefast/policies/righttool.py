"""The Right Tool for the Job: confidence, with a temperature for each exit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eefast.ops import Accumulate
from eefast.policies.base import Columns
from eefast.policies.threshold import Confidence
from eefast.policies.values import Values, numbers


@dataclass(frozen=True)
class RightTool(Confidence):
    """The Right Tool for the Job (Schwartz et al., ACL 2020), sections 3.2 and 3.3:

        p_i = softmax(z_i / T_i);        leave when max p_i >= tau

    The logits of the output are z_i / T_i. `eefast.calibrate("righttool", trace)` fits the
    temperatures. Equality leaves, as in the released code, whose classifiers also read the logits
    of those before them (not here).

    Args:
        threshold: tau, one number (the paper's) or one per exit; a probability, so above 1 no
            sample exits early.
        temperatures: T_i > 0, one number or one per exit.
    """

    name = "righttool"
    accumulate = Accumulate.TEMPERATURE

    temperatures: Values = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        temperatures = numbers(self.name, "temperatures", self.temperatures, 1e-6)
        object.__setattr__(self, "temperatures", temperatures)

    def columns(self, num_exits: int) -> Columns:
        t = self.temperatures
        scales = [1 / value for value in t] if isinstance(t, Sequence) else 1 / t
        return Columns(thresholds=self.threshold, tau=scales)
