"""LeeBERT: PABEE's rule over exits that were distilled from one another."""

from __future__ import annotations

from eefast.policies.pabee import PABEE


class LeeBERT(PABEE):
    """LeeBERT (Zhu, ACL-IJCNLP 2021): exit when the prediction has stayed for `patience` exits.

    The rule and its comparison are PABEE's (S_i >= patience, the earliest exit is `patience + 1`).
    What is the paper's own is the training, objective "leebert".
    """

    name = "leebert"
