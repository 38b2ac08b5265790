"""BranchyNet and DeeBERT: leave when the entropy, in nats, is low enough."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eefast.policies.base import Columns, Policy
from eefast.policies.threshold import Entropy
from eefast.policies.values import Values, probabilities

if TYPE_CHECKING:
    from eefast.traces import ExitTrace


@dataclass(frozen=True)
class BranchyNet(Entropy):
    """BranchyNet (Teerapittayanon et al., ICPR 2016), Algorithm 1: leave at exit i when e_i < T_i.

    e = -sum_c p_c ln p_c is in nats, from 0 to ln C, and the comparison is strict. The recurrence
    has entropies over ln C: a threshold in nats has a meaning for one number of classes only.

        BranchyNet(0.3, num_classes=2)

    Args:
        threshold: T in nats, one number or one per exit (the paper's).
        num_classes: C, which the threshold needs; calibration knows it.
    """

    name = "branchynet"

    @classmethod
    def default(cls, num_exits: int) -> BranchyNet:
        """0.3, of the paper's ResNet (Table I, its first exit)."""
        return cls(0.3)

    @classmethod
    def settings(cls, trace: ExitTrace) -> Sequence[BranchyNet]:
        """Thresholds from 0.02 to 0.98 of the highest entropy, the same for all exits."""
        return [cls(tau, num_classes=trace.num_classes) for tau in nats(trace.num_classes)]

    def columns(self, num_exits: int) -> Columns:
        return below(self, self.threshold)


class DeeBERT(BranchyNet):
    """DeeBERT (Xin et al., ACL 2020), section 3.2: leave when the entropy is below S, in nats.

    The comparison is strict. In the released code a probability that underflows makes the entropy
    NaN, so that the sample never leaves; here 0 ln 0 is 0. There a highway classifier stands before
    the model's own at the last layer, too, and may answer first; here each layer has one exit.

    Args:
        threshold: S in nats; the paper has one for all exits.
        num_classes: C, which the threshold needs; calibration knows it.
    """

    name = "deebert"

    @classmethod
    def default(cls, num_exits: int) -> DeeBERT:
        """0.3, among those that the released scripts sweep (0 to 0.7); the paper names none."""
        return cls(0.3)


def nats(num_classes: int) -> list[float]:
    """Thresholds on the entropy in nats to choose from."""
    return [share * math.log(num_classes) for share in probabilities()]


def below(policy: Policy, threshold: Values) -> Columns:
    """The columns of a policy that leaves at an entropy below a threshold in nats.

    Raises:
        ValueError: the policy does not say for how many classes it is.
    """
    if policy.num_classes is None or policy.num_classes < 2:
        raise ValueError(
            f"{policy.name}: a threshold in nats needs num_classes, 2 or more, got "
            f"{policy.num_classes!r}: give it, as in {type(policy).__name__}"
            f"({threshold!r}, num_classes=2)"
        )
    highest = math.log(policy.num_classes)
    if isinstance(threshold, Sequence):
        return Columns(thresholds=[-tau / highest for tau in threshold])
    return Columns(thresholds=-threshold / highest)
