"""FastBERT: leave when the normalised entropy is at most the speed asked for."""

from __future__ import annotations

from eefast.policies.threshold import Entropy


class FastBERT(Entropy):
    """FastBERT (Liu et al., ACL 2020), Eq. 7: leave when the uncertainty is not above the speed.

    The uncertainty is the entropy over ln C; a sample whose uncertainty is higher than `Speed` goes
    on, so that equality leaves: S_i = -H_i >= -tau. The released script does the same (H <= speed);
    the package on PyPI leaves at H < speed.

    Args:
        threshold: the speed, in [0, 1]; one number (the paper's) or one per exit.
    """

    name = "fastbert"
    strict = False
