"""The recurrence that every exit policy is a row of (its kinds: `eefast.ops.kinds`), step by step.

At exit i a sample has its signals (prediction, confidence, normalised entropy, agreement with the
exit before, and the learned score q where the policy has a scorer). The policy keeps one running
score,

    S_0 = 0,    S_i = keep_i * S_(i-1) + w_i * gain_i,

and the sample exits at the first i whose score reaches the threshold alpha_i; the last exit always
answers. With one class (regression) an exit agrees with the one before if their outputs differ by
less than tau, |z_i - z_(i-1)| < tau (PABEE, Eq. 3). This file is the plain PyTorch form of it all,
the only loop body over exits in Python: the reference exit step, the simulation of policies on
traces and calibration all call it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from eefast.ops.kinds import (
    ANSWERS,
    GAINS_ABOVE_TAU,
    GAINS_BY_SCORE,
    KEEPS_ABOVE_TAU,
    KEEPS_BY_SCORE,
    MAJORITY_MARGIN,
    NO_PREDICTION,
    Accumulate,
    Gain,
    Keep,
    ScorerKind,
)
from eefast.ops.signals import Signals, network_features, network_score, signals


class Values(NamedTuple):
    """What N samples carry from exit to exit. No field is ever written in place."""

    score: Tensor  # (N,) float32: S_i
    prediction: Tensor  # (N,) integers: of the exit before; -1 before the first
    # (N, C) float32: votes; the weighted sum of logits; the sum of probabilities; or the logits of
    # the most confident exit.
    votes: Tensor | None = None
    memory: Tensor | None = None  # (N, M) float32: the learned score of each exit met, 0 elsewhere
    output: Tensor | None = None  # (N,) float32: with one class, z of the exit before


class Outcome(NamedTuple):
    """What one exit makes of N samples."""

    values: Values  # after the exit: values.prediction and values.score are the exit's own
    # (N, C) float32: the logits of a sample that exits here; its prediction is their argmax.
    answer: Tensor
    leaves: Tensor  # (N,) bool: whether the sample exits here


class Recurrence(NamedTuple):
    """A policy's row of the recurrence: what it keeps, gains, gathers and asks of a scorer.

        values = recurrence.start(samples, classes, exits, device)
        for exit in range(1, exits + 1):
            values, answer, leaves = recurrence.step(values, logits[exit - 1], table, exit)

    All samples take every step: who has exited before is the caller's to know. The arithmetic is
    float32, whatever the default dtype, and on the device of the values.
    """

    keep: int  # a Keep
    gain: int  # a Gain
    strict: bool = False  # leave at S > alpha rather than at S >= alpha
    accumulate: int = Accumulate.NONE
    scorer: int = ScorerKind.NONE

    @property
    def uses_votes(self) -> bool:
        """Whether values hold `votes`: for an accumulator, and for a network's vote share."""
        gathers = self.accumulate not in (Accumulate.NONE, Accumulate.TEMPERATURE)
        return gathers or self.scorer == ScorerKind.NETWORK

    @property
    def needs_memory(self) -> bool:
        """Whether the policy itself reads `memory`."""
        return self.scorer == ScorerKind.NETWORK

    @property
    def compares(self) -> bool:
        """Whether the policy compares an exit with the one before."""
        return self.keep == Keep.AGREE or self.gain == Gain.AGREE

    @property
    def by_similarity(self) -> bool:
        """Whether hidden vectors decide, and no head is computed before the answer."""
        return self.gain == Gain.SIMILARITY

    def check(self) -> None:
        """Refuse kinds that do not go together.

        Raises:
            ValueError: a number that is no kind, a learned score without a scorer, Gain.VOTES
                without votes, a NETWORK scorer over what has no vote share, STREAK_MEAN of a keep
                that knows no streak, TEMPERATURE where tau is wanted for something else, or
                Gain.SIMILARITY with anything that asks for a head.
        """
        keep, gain = Keep(self.keep), Gain(self.gain)
        accumulate, scorer = Accumulate(self.accumulate), ScorerKind(self.scorer)
        if scorer is ScorerKind.NONE and keep in KEEPS_BY_SCORE:
            raise ValueError(f"keep={keep!s} needs a scorer, got ScorerKind.NONE")
        if scorer is ScorerKind.NONE and gain in GAINS_BY_SCORE:
            raise ValueError(f"gain={gain!s} needs a scorer, got ScorerKind.NONE")
        if gain is Gain.VOTES and accumulate is not Accumulate.VOTES:
            raise ValueError(f"gain=Gain.VOTES needs Accumulate.VOTES, got {accumulate!s}")
        if self.by_similarity and (keep or accumulate or scorer):
            raise ValueError(
                "gain=Gain.SIMILARITY decides before any head is computed: it goes with "
                "Keep.NEVER, Accumulate.NONE and ScorerKind.NONE, got "
                f"{keep!s}, {accumulate!s} and {scorer!s}"
            )
        without_share = (Accumulate.LOG_PROBABILITIES, *ANSWERS)
        if scorer is ScorerKind.NETWORK and accumulate in without_share:
            raise ValueError(f"a NETWORK scorer reads the vote share, which {accumulate!s} has not")
        if accumulate is Accumulate.STREAK_MEAN and keep not in KEEPS_ABOVE_TAU:
            raise ValueError(
                "Accumulate.STREAK_MEAN needs a keep that says where a streak begins, one of "
                f"{', '.join(map(str, KEEPS_ABOVE_TAU))}; got {keep!s}"
            )
        if accumulate is Accumulate.TEMPERATURE and keep in KEEPS_ABOVE_TAU:
            raise ValueError(f"tau is the 1 / temperature of {accumulate!s}, and {keep!s} has none")
        if accumulate is Accumulate.TEMPERATURE and gain in GAINS_ABOVE_TAU:
            raise ValueError(f"tau is the 1 / temperature of {accumulate!s}, and {gain!s} has none")

    def start(
        self, samples: int, classes: int, exits: int, device: torch.device | str = "cpu"
    ) -> Values:
        """The values before the first exit; with `memory` wherever there is a scorer."""
        f32 = torch.float32
        return Values(
            torch.zeros(samples, dtype=f32, device=device),
            torch.full((samples,), NO_PREDICTION, dtype=torch.int64, device=device),
            torch.zeros(samples, classes, dtype=f32, device=device) if self.uses_votes else None,
            None
            if self.scorer == ScorerKind.NONE
            else torch.zeros(samples, exits, dtype=f32, device=device),
            torch.zeros(samples, dtype=f32, device=device) if classes == 1 else None,
        )

    def step(
        self,
        values: Values,  # of N samples, after the exit before
        logits: Tensor,  # (N, C) floats: this exit's own
        table: Tensor,  # (L, 3) float32: weight, threshold and tau of every exit
        exit: int,  # 1-based; len(table) is the last exit, where every sample leaves
        *,
        q: Tensor | None = None,  # (N,) in [0, 1]: with ROW, the sigmoid of the row's output
        scorer: Tensor | None = None,  # (H, C + exit + 4) float32: with NETWORK, its weights
        similarity: Tensor | None = None,  # (N,) float32: of the vectors, for Gain.SIMILARITY
    ) -> Outcome:
        """One exit for all samples: accumulate, signals, score, recurrence, decision.

        Args:
            values: from `start`, or from the step before.
            logits: what this exit's classifier gives.
            table: the policy table; what lies behind the row of `exit` is not read.
            exit: the row of `table`; exits that the policy does not look at are left out.
            q: the learned score, for a ROW scorer only.
            scorer: the weights of this exit's network, for a NETWORK scorer only (`network_score`).
            similarity: of this exit's vector and the one before, for Gain.SIMILARITY only.

        Returns:
            The new values, and who exits here with which logits.
        """
        weight, threshold, tau = table[exit - 1]
        z, previous, votes, memory = logits.float(), values.prediction, values.votes, values.memory
        if self.accumulate == Accumulate.LOG_PROBABILITIES and votes is not None:
            total = table[:exit, 2].sum()
            # By 0 nothing is multiplied: 0 * inf is NaN.
            votes = torch.where(tau == 0, votes, votes + tau * z)
            z = torch.where(total == 0, z, votes / total)
        elif self.accumulate == Accumulate.TEMPERATURE:
            z = tau * z
        now, answer, majority = signals(z), z, None
        network = self.scorer == ScorerKind.NETWORK
        if votes is not None and (network or self.accumulate == Accumulate.VOTES):
            votes = votes.scatter_add(1, now.prediction[:, None], torch.ones_like(votes[:, :1]))
        if self.accumulate == Accumulate.VOTES and votes is not None:
            now, majority = _elect(votes, now, previous)
            index = now.prediction[:, None]
            answer = votes.scatter_add(1, index, torch.full_like(votes[:, :1], MAJORITY_MARGIN))
        if scorer is not None and votes is not None and memory is not None:
            q = network_score(scorer, network_features(z, now, votes, memory[:, : exit - 1]))
        if memory is not None and q is not None:
            memory = memory.clone()
            memory[:, exit - 1] = q
        agree, output = now.prediction == previous, None
        if values.output is not None:
            output = z[:, 0]
            agree &= (output - values.output).abs() < tau
        score = advance(
            values.score, agree, now,
            keep=self.keep, gain=self.gain, weight=weight, tau=tau, q=q, votes=majority,
            similarity=similarity,
        )  # fmt: skip
        leaves = reached(score, threshold, strict=self.strict)
        if exit == len(table):
            leaves = torch.ones_like(leaves)
        if self.accumulate in ANSWERS and votes is not None:
            kept = _keeps(Keep(self.keep), agree, now, tau, q)
            votes = _gather(self.accumulate, votes, z, now, kept, first=previous == NO_PREDICTION)
            answer = _answer(self.accumulate, votes, z, last=exit == len(table))
        return Outcome(Values(score, now.prediction, votes, memory, output), answer, leaves)


def advance(
    score: Tensor,  # (N,) float32, the score after the exit before
    agree: Tensor,  # (N,) bool: whether this exit agrees with the one before
    now: Signals,  # of (N,)
    *,
    keep: int,
    gain: int,
    weight: Tensor | float,
    tau: Tensor | float,
    q: Tensor | None = None,  # (N,) the learned score, where keep or gain asks for it
    votes: Tensor | None = None,  # (N,) of the majority class, for Gain.VOTES
    similarity: Tensor | None = None,  # (N,) for Gain.SIMILARITY
) -> Tensor:
    """The score after this exit, S_i = keep_i * S_(i-1) + w_i * gain_i, [N] float32.

    What an indicator drops is dropped, not multiplied by 0: a score that is not kept, and the
    weight of a gain that does not hold, may be NaN or infinite.
    """
    one = torch.ones_like(score)
    if keep == Keep.NOT_SCORE:
        assert q is not None
        kept = (1 - q) * score
    else:
        kept = score.masked_fill(~_keeps(Keep(keep), agree, now, tau, q), 0.0)
    match Gain(gain):
        case Gain.ONE:
            gained = one
        case Gain.CONFIDENCE:
            gained = now.confidence
        case Gain.NEGATIVE_ENTROPY:
            gained = -now.entropy
        case Gain.SCORE:
            assert q is not None
            gained = q
        case Gain.VOTES:
            assert votes is not None
            gained = votes
        case Gain.SIMILARITY:
            assert similarity is not None
            gained = similarity
        case Gain.AGREE:
            return kept + (weight * one).masked_fill(~agree, 0.0)
        case Gain.ENTROPY_BELOW:
            return kept + (weight * one).masked_fill(~(now.entropy < tau), 0.0)
        case Gain.CONFIDENCE_ABOVE:
            return kept + (weight * one).masked_fill(~(now.confidence > tau), 0.0)
        case Gain.SCORE_ABOVE:
            assert q is not None
            return kept + (weight * one).masked_fill(~(q > tau), 0.0)
    return kept + weight * gained


def reached(score: Tensor, threshold: Tensor | float, *, strict: bool) -> Tensor:
    """Where the score reaches its threshold: S > alpha if strict, S >= alpha otherwise."""
    return score > threshold if strict else score >= threshold


def _keeps(
    keep: Keep, agree: Tensor, now: Signals, tau: Tensor | float, q: Tensor | None
) -> Tensor:
    """Where the score is kept whole, [N] bool."""
    match keep:
        case Keep.AGREE:
            return agree
        case Keep.ENTROPY_BELOW:
            return now.entropy < tau
        case Keep.CONFIDENCE_ABOVE:
            return now.confidence > tau
        case Keep.SCORE_ABOVE:
            assert q is not None
            return q > tau
        case Keep.ALWAYS:
            return torch.ones_like(agree)
    return torch.zeros_like(agree)


def _elect(
    votes: Tensor,  # (N, C), this exit's vote among them
    now: Signals,
    previous: Tensor,  # (N,) the majority before; -1 before the first exit
) -> tuple[Signals, Tensor]:
    """The signals of the majority, and its votes, [N].

    One vote more can only make its own class the majority: the class with most votes, ties to the
    most recent prediction among them, is this exit's or the one before.
    """
    mine = votes.gather(1, now.prediction[:, None])[:, 0]
    before = votes.gather(1, previous.clamp(min=0).long()[:, None])[:, 0]
    changes = (previous == NO_PREDICTION) | (mine >= before)
    elected = Signals(
        torch.where(changes, now.prediction, previous.long()),
        torch.where(changes, mine, before) / votes.sum(-1),
        now.entropy,
    )
    return elected, torch.where(changes, mine, before)


def _gather(
    accumulate: int,  # one of ANSWERS
    gathered: Tensor,  # (N, C), after the exit before
    logits: Tensor,  # (N, C), this exit's
    now: Signals,
    kept: Tensor,  # (N,) bool: whether the streak goes on
    *,
    first: Tensor,  # (N,) bool: whether the sample meets no exit but this
) -> Tensor:
    """What `ANSWERS` gather, this exit's part among it, [N, C].

    The most confident exit is known by its logits alone, whose confidence is taken again. A NaN is
    never the more confident, and anything is more confident than it.
    """
    if accumulate == Accumulate.MOST_CONFIDENT:
        most = signals(gathered).confidence
        nan = most.isnan() & ~now.confidence.isnan()
        return torch.where((first | nan | (now.confidence > most))[:, None], logits, gathered)
    total = gathered + logits.softmax(-1)
    return total if accumulate == Accumulate.MEAN else total.masked_fill(~kept[:, None], 0.0)


def _answer(accumulate: int, gathered: Tensor, logits: Tensor, *, last: bool) -> Tensor:
    """The logits that `ANSWERS` answer with, [N, C]; this exit's own where nothing was gathered."""
    if accumulate == Accumulate.MOST_CONFIDENT:
        return gathered if last else logits
    total = gathered.sum(-1, keepdim=True)
    return torch.where(total == 0, logits, (gathered / total).log())
