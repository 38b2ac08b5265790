"""MSDNet: a confidence threshold for each exit, so that a budget is met."""

from __future__ import annotations

from eefast.policies.threshold import Confidence


class MSDNet(Confidence):
    """MSDNet (Huang et al., ICLR 2018), section 5: leave at exit i when C_i >= theta_i.

    `eefast.calibrate("msdnet", trace, budget=...)` sets the thresholds as the paper does: exits are
    left by shares that are a geometric series, and theta_i is the confidence of the last validation
    sample of the share of exit i. Equality leaves, as in the released code.

    Args:
        threshold: theta_i, one number or one per exit.
    """

    name = "msdnet"
