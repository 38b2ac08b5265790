"""Shallow-Deep Networks: confidence, and the most confident exit where none was confident."""

from __future__ import annotations

from eefast.ops import Accumulate
from eefast.policies.threshold import Confidence


class ShallowDeep(Confidence):
    """Shallow-Deep Networks (Kaya et al., ICML 2019), section 5: leave when max p_i >= q.

    A sample that no exit before the last has let go is answered with its most confident exit, the
    earliest among equals. Equality leaves, as in the released code.

    Args:
        threshold: q, one number (the paper's) or one per exit; a probability, so above 1 no sample
            exits early.
    """

    name = "shallow-deep"
    accumulate = Accumulate.MOST_CONFIDENT
