"""The kinds of the recurrence: what a policy keeps, gains, gathers, and asks of a scorer."""

from __future__ import annotations

from enum import IntEnum

# The numbers of these four are part of the op's contract: csrc/policy.h and kernels/policy.py
# repeat them.


class _Kind(IntEnum):
    def __str__(self) -> str:  # since Python 3.11 an IntEnum's is its number
        return f"{type(self).__name__}.{self.name}"


class Keep(_Kind):
    """How much of the earlier exits' score is kept. `tau` is the third column of the table."""

    NEVER = 0  # 0: each exit is judged alone
    AGREE = 1  # 1 if this exit agrees with the one before, else 0
    ENTROPY_BELOW = 2  # 1 if the normalised entropy is below tau, else 0
    CONFIDENCE_ABOVE = 3  # 1 if the confidence is above tau, else 0
    ALWAYS = 4  # 1
    NOT_SCORE = 5  # 1 - q, a number (PALBERT)
    SCORE_ABOVE = 6  # 1 if the learned score q is above tau, else 0 (PCEE-BERT-v2)


class Gain(_Kind):
    """What an exit adds to the score, times the exit's weight."""

    ONE = 0  # 1
    CONFIDENCE = 1  # the highest class probability
    NEGATIVE_ENTROPY = 2  # minus the normalised entropy
    AGREE = 3  # 1 if this exit agrees with the one before, else 0
    ENTROPY_BELOW = 4  # 1 if the normalised entropy is below tau, else 0
    CONFIDENCE_ABOVE = 5  # 1 if the confidence is above tau, else 0
    SCORE = 6  # the learned score q
    VOTES = 7  # the votes of the majority class
    SCORE_ABOVE = 8  # 1 if the learned score q is above tau, else 0
    # The cosine of this exit's hidden vector and that of the layer before (MuE). It decides before
    # any head, in `eefast.ops.similarity_step`: the exit step does not know this kind.
    SIMILARITY = 9


class Accumulate(_Kind):
    """What stands for this exit's own logits.

    With VOTES, LOG_PROBABILITIES and TEMPERATURE it is what the signals are taken of, and what a
    sample is answered with. With the last three (`ANSWERS`) signals and decision are this exit's
    own, and only the answer of a sample that exits is another.
    """

    NONE = 0
    VOTES = 1  # one vote of each exit for its argmax; ties go to the most recent majority (EEIC)
    LOG_PROBABILITIES = 2  # p ~ prod_j p_j^(tau_j / T_i), T_i = sum_(j <= i) tau_j (ZTW)
    TEMPERATURE = 3  # tau_i z_i, tau_i = 1 / temperature; nothing is gathered (RightTool)
    MEAN = 4  # answers ln of the mean probabilities of all exits so far (PCEE-BERT)
    STREAK_MEAN = 5  # as MEAN, of the exits since the score was last dropped (PCEE-BERT)
    # At the last exit answers the logits of the most confident one, of equal ones the first
    # (Shallow-Deep).
    MOST_CONFIDENT = 6


ANSWERS = (Accumulate.MEAN, Accumulate.STREAK_MEAN, Accumulate.MOST_CONFIDENT)
"""The accumulators that change nothing but the answer."""


class ScorerKind(_Kind):
    """Where the learned score q comes from."""

    NONE = 0
    ROW = 1  # the sigmoid of one more row of the classifier (BERxiT, PALBERT)
    NETWORK = 2  # a small network over signals and earlier scores (EENet, Eq. 5-9)


KEEPS_BY_SCORE = (Keep.NOT_SCORE, Keep.SCORE_ABOVE)
GAINS_BY_SCORE = (Gain.SCORE, Gain.SCORE_ABOVE)
KEEPS_ABOVE_TAU = (Keep.ENTROPY_BELOW, Keep.CONFIDENCE_ABOVE, Keep.SCORE_ABOVE)
GAINS_ABOVE_TAU = (Gain.ENTROPY_BELOW, Gain.CONFIDENCE_ABOVE, Gain.SCORE_ABOVE)

NO_PREDICTION = -1
"""The prediction of a sample that has met no exit yet: nothing agrees with it."""

MAJORITY_MARGIN = 0.5
"""Added to the majority's votes in the logits written, so that their argmax is the prediction."""
