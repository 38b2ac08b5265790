"""Exit policies: rows of one recurrence (see `eefast.policies.base`)."""

from eefast.ops import Accumulate, Gain, Keep, ScorerKind
from eefast.policies.base import Columns, Policy, policy_class, policy_from_dict
from eefast.policies.beem import BEEM
from eefast.policies.berxit import BERxiT
from eefast.policies.eenet import EENet
from eefast.policies.expected import Expected
from eefast.policies.fixed import Budgeted, Never
from eefast.policies.jei_dnn import JEIDNN
from eefast.policies.pabee import PABEE
from eefast.policies.pcee import PCEE
from eefast.policies.threshold import Confidence, Entropy
from eefast.policies.values import Values
from eefast.policies.voting import Voting

__all__ = [
    "BEEM",
    "JEIDNN",
    "PABEE",
    "PCEE",
    "Accumulate",
    "BERxiT",
    "Budgeted",
    "Columns",
    "Confidence",
    "EENet",
    "Entropy",
    "Expected",
    "Gain",
    "Keep",
    "Never",
    "Policy",
    "ScorerKind",
    "Values",
    "Voting",
    "policy_class",
    "policy_from_dict",
]
