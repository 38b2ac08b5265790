"""The exit step once more, in Python floats and for one row at a time: what tests compare to."""

import math

import torch

from eefast.ops import Accumulate, ExitState, Gain, HeadWeights, Keep, ScorerKind


def logits_of(hidden: torch.Tensor, head: HeadWeights) -> torch.Tensor:
    """The head in float64, [N, C] of vectors [N, D]."""
    x = hidden.double()
    if head.pooler_weight is not None:
        x = x @ head.pooler_weight.double().T
        if head.pooler_bias is not None:
            x = x + head.pooler_bias.double()
        x = x.tanh()
    z = x @ head.weight.double().T
    return z if head.bias is None else z + head.bias.double()


def softmax_of(z: list[float]) -> list[float]:
    """Probabilities of logits; all NaN if one of the logits is."""
    if any(math.isnan(value) for value in z):
        return [math.nan] * len(z)
    largest = max(z)
    exponentials = [math.exp(value - largest) for value in z]
    total = sum(exponentials)
    return [e / total for e in exponentials]


def signals_of(z: list[float]) -> tuple[int, float, float]:
    """Prediction, confidence and normalised entropy of logits."""
    if any(math.isnan(value) for value in z):
        return next(i for i, value in enumerate(z) if math.isnan(value)), math.nan, math.nan
    prediction = z.index(max(z))
    probabilities = softmax_of(z)
    if len(z) == 1:
        return 0, 1.0, 0.0
    entropy = -sum(p * math.log(p) for p in probabilities if p > 0) / math.log(len(z))
    return prediction, max(probabilities), entropy


def advance_one(
    score: float,
    agree: bool,
    signals: tuple[int, float, float],
    keep: Keep,
    gain: Gain,
    weight: float,
    tau: float,
    q: float = math.nan,
    votes: float = math.nan,
) -> float:
    """S_i of one sample, read off the table of policies."""
    _, confidence, entropy = signals
    holds = {
        "agree": agree,
        "entropy": entropy < tau,
        "confidence": confidence > tau,
        "score": q > tau,
    }
    kept = {
        Keep.NEVER: 0.0,
        Keep.AGREE: score if holds["agree"] else 0.0,
        Keep.ENTROPY_BELOW: score if holds["entropy"] else 0.0,
        Keep.CONFIDENCE_ABOVE: score if holds["confidence"] else 0.0,
        Keep.ALWAYS: score,
        Keep.NOT_SCORE: (1 - q) * score,
        Keep.SCORE_ABOVE: score if holds["score"] else 0.0,
    }[keep]
    gained = {
        Gain.ONE: weight,
        Gain.CONFIDENCE: weight * confidence,
        Gain.NEGATIVE_ENTROPY: weight * -entropy,
        Gain.AGREE: weight if holds["agree"] else 0.0,
        Gain.ENTROPY_BELOW: weight if holds["entropy"] else 0.0,
        Gain.CONFIDENCE_ABOVE: weight if holds["confidence"] else 0.0,
        Gain.SCORE: weight * q,
        Gain.VOTES: weight * votes,
        Gain.SCORE_ABOVE: weight if holds["score"] else 0.0,
    }[gain]
    return kept + gained


def log(x: float) -> float:
    """ln x, with ln 0 = -inf."""
    return math.log(x) if x != 0 else -math.inf


def sigmoid(x: float) -> float:
    """1 / (1 + e^-x), for x of any size."""
    return 1 / (1 + math.exp(-x)) if x > -700 or math.isnan(x) else 0.0


def network_of(scorer: list[list[float]], features: list[float]) -> float:
    """A NETWORK scorer's q from its units and their features."""
    total = 0.0
    for *weights, bias, out in scorer:
        unit = sum(w * f for w, f in zip(weights, features, strict=True)) + bias
        total += out * (unit if unit > 0 else 0.01 * unit)
    return sigmoid(total)


def majority_of(votes: list[float], history: list[int]) -> int:
    """The class with most votes; of tied ones the majority that was seen last."""
    tied = [c for c, n in enumerate(votes) if n == max(votes)]
    return next(c for c in reversed(history) if c in tied)


class Sample:
    """One sample, which meets the exits one by one."""

    def __init__(self, state: ExitState, number: int) -> None:
        self.score = state.score[number].item()
        self.prediction = int(state.prediction[number])
        self.votes = None if state.votes is None else state.votes[number].tolist()
        self.memory = None if state.memory is None else state.memory[number].tolist()
        self.output = state.logits[number, 0].item()  # with one class, of the exit before

    def meet(self, z, row_output, table, exit, keep, gain, accumulate, kind, scorer) -> list[float]:
        """One exit. Gives the logits that are written if the sample leaves here."""
        weight, _, tau = table[exit - 1]
        previous, answer, count = self.prediction, z, math.nan
        if accumulate == Accumulate.LOG_PROBABILITIES:
            total = sum(row[2] for row in table[:exit])
            if tau != 0:
                self.votes = [v + tau * value for v, value in zip(self.votes, z, strict=True)]
            if total != 0:
                z = answer = [v / total for v in self.votes]
        if accumulate == Accumulate.TEMPERATURE:
            z = answer = [tau * value for value in z]
        now = signals_of(z)
        if accumulate == Accumulate.VOTES or kind == ScorerKind.NETWORK:
            self.votes[now[0]] += 1
        if accumulate == Accumulate.VOTES:
            # Most recent first: this exit's own class, then the majority before.
            elected = majority_of(self.votes, [previous, now[0]])
            count = self.votes[elected]
            now = (elected, count / sum(self.votes), now[2])
            answer = [v + 0.5 * (c == elected) for c, v in enumerate(self.votes)]
        q = math.nan
        if kind == ScorerKind.ROW:
            q = sigmoid(row_output)
        elif kind == ScorerKind.NETWORK:
            share = max(self.votes) / sum(self.votes)
            features = [*softmax_of(z), now[1], 1 - now[2], share, *self.memory[: exit - 1]]
            q = network_of(scorer, features)
        if self.memory is not None:
            self.memory[exit - 1] = q
        agree = now[0] == previous and (len(z) > 1 or abs(z[0] - self.output) < tau)
        self.score = advance_one(self.score, agree, now, keep, gain, weight, tau, q, count)
        self.prediction, self.output = now[0], z[0]
        if accumulate in (Accumulate.MEAN, Accumulate.STREAK_MEAN):
            self.votes = [v + p for v, p in zip(self.votes, softmax_of(z), strict=True)]
            # A score of 1 says whether the streak goes on.
            if accumulate == Accumulate.STREAK_MEAN and not advance_one(
                1.0, agree, now, keep, Gain.ONE, 0.0, tau, q
            ):
                self.votes = [0.0] * len(z)
            total = sum(self.votes)
            if total != 0:
                answer = [log(v / total) for v in self.votes]
        if accumulate == Accumulate.MOST_CONFIDENT:
            before = signals_of(self.votes)[1]
            if previous == -1 or now[1] > before or (math.isnan(before) > math.isnan(now[1])):
                self.votes = z
            if exit == len(table):
                answer = self.votes
        return answer


def exit_step(
    hidden, head, table, state, *, exit, layer, keep, gain, strict=False,
    accumulate=Accumulate.NONE, scorer_kind=ScorerKind.NONE, scorer=None, rows=None, offsets=None,
):  # fmt: skip
    """`eefast.ops.exit_step` in float64; returns a new state whose floats are float64."""
    out = ExitState(*(None if t is None else t.clone() for t in state))
    out = out._replace(
        **{
            name: tensor.double()
            for name, tensor in out._asdict().items()
            if tensor is not None and tensor.is_floating_point()
        }
    )
    classes, numbers = out.logits.shape[1], table.tolist()
    threshold = numbers[exit - 1][1]
    units = None if scorer is None else scorer.tolist()
    if offsets is not None:
        hidden = hidden[offsets]
    elif hidden.dim() == 3:
        hidden = hidden[:, 0]
    logits = logits_of(hidden, head)
    samples = list(range(len(logits))) if rows is None else rows.tolist()
    if head.cascade is not None:
        logits[:, :classes] += out.logits[samples] @ head.cascade.double().T
    for z, sample in zip(logits.tolist(), samples, strict=True):
        if out.exit_layer[sample]:
            continue
        it = Sample(out, sample)
        answer = it.meet(
            z[:classes], z[-1], numbers, exit, keep, gain, accumulate, scorer_kind, units
        )
        out.score[sample], out.prediction[sample] = it.score, it.prediction
        if it.votes is not None:
            out.votes[sample] = torch.tensor(it.votes, dtype=torch.float64)
        if it.memory is not None:
            out.memory[sample] = torch.tensor(it.memory, dtype=torch.float64)
        if exit == len(table) or (it.score > threshold if strict else it.score >= threshold):
            out.exit_layer[sample] = layer
            out.prediction[sample] = signals_of(answer)[0]
            out.logits[sample] = torch.tensor(answer, dtype=torch.float64)
        else:
            out.running[exit - 1] = True
            if classes == 1 or head.cascade is not None:
                out.logits[sample] = torch.tensor(z[:classes], dtype=torch.float64)
    return out
