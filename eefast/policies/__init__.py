"""Exit policies: rows of one recurrence (see `eefast.policies.base`)."""

from eefast.ops import Accumulate, Gain, Keep, ScorerKind
from eefast.policies.base import Columns, Policy
from eefast.policies.beem import BEEM
from eefast.policies.berxit import BERxiT
from eefast.policies.branchynet import BranchyNet, DeeBERT
from eefast.policies.eenet import EENet
from eefast.policies.elasticbert import ElasticBERT
from eefast.policies.expected import Expected
from eefast.policies.fastbert import FastBERT
from eefast.policies.fixed import Budgeted, Never
from eefast.policies.jei_dnn import JEIDNN
from eefast.policies.leebert import LeeBERT
from eefast.policies.msdnet import MSDNet
from eefast.policies.mue import MuE
from eefast.policies.pabee import PABEE
from eefast.policies.palbert import PALBERT
from eefast.policies.pcee import PCEE, PCEEv1, PCEEv2
from eefast.policies.registry import policy_class, policy_from_dict
from eefast.policies.righttool import RightTool
from eefast.policies.shallow_deep import ShallowDeep
from eefast.policies.threshold import Confidence, Entropy
from eefast.policies.values import Values
from eefast.policies.voting import EEICPatience, Voting
from eefast.policies.ztw import ZTW

__all__ = [
    "BEEM",
    "JEIDNN",
    "PABEE",
    "PALBERT",
    "PCEE",
    "ZTW",
    "Accumulate",
    "BERxiT",
    "BranchyNet",
    "Budgeted",
    "Columns",
    "Confidence",
    "DeeBERT",
    "EEICPatience",
    "EENet",
    "ElasticBERT",
    "Entropy",
    "Expected",
    "FastBERT",
    "Gain",
    "Keep",
    "LeeBERT",
    "MSDNet",
    "MuE",
    "Never",
    "PCEEv1",
    "PCEEv2",
    "Policy",
    "RightTool",
    "ScorerKind",
    "ShallowDeep",
    "Values",
    "Voting",
    "policy_class",
    "policy_from_dict",
]
