"""Exit policies: rows of one recurrence (see `eefast.policies.base`)."""

from eefast.ops import Gain, Keep
from eefast.policies.base import Columns, Policy, Values, policy_class, policy_from_dict
from eefast.policies.beem import BEEM
from eefast.policies.fixed import Budgeted, Never
from eefast.policies.pabee import PABEE
from eefast.policies.pcee import PCEE
from eefast.policies.threshold import Confidence, Entropy

__all__ = [
    "BEEM",
    "PABEE",
    "PCEE",
    "Budgeted",
    "Columns",
    "Confidence",
    "Entropy",
    "Gain",
    "Keep",
    "Never",
    "Policy",
    "Values",
    "policy_class",
    "policy_from_dict",
]
