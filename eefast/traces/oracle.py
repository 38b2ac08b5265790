"""The best that any policy could do with some exits."""

from __future__ import annotations

import torch

from eefast.traces.simulate import Simulation
from eefast.traces.trace import ExitTrace


def oracle(trace: ExitTrace) -> Simulation:
    """Each sample leaves at the first exit that is right, and at the last if none is.

    It reads the labels, so it is no policy: no rule is faster and as accurate, as long as exits
    answer for themselves. The score is 1 where an exit is right, else 0.

    Raises:
        ValueError: a trace of one output (regression), where no exit is right or wrong.
    """
    if trace.num_classes == 1:
        raise ValueError("oracle needs classes, got a trace of one output (regression)")
    answers = trace.logits.argmax(-1)
    right = answers == trace.labels
    # argmax finds the first of equals, and 0 where none is right.
    place = torch.where(right.any(0), right.byte().argmax(0), len(right) - 1)
    return Simulation(
        place + 1,
        answers.gather(0, place[None])[0],
        right.any(0).float(),
        trace.labels,
        trace.exit_layers,
        trace.costs,
        trace.num_classes,
    )
