"""The exit step once more, in Python floats and for one row at a time: what tests compare with."""

import math

import torch

from eefast.ops import ExitState, Gain, HeadWeights, Keep


def logits_of(row: torch.Tensor, head: HeadWeights) -> torch.Tensor:
    """The head in float64, [C]."""
    x = row.double()
    if head.pooler_weight is not None:
        x = head.pooler_weight.double() @ x
        if head.pooler_bias is not None:
            x = x + head.pooler_bias.double()
        x = x.tanh()
    z = head.weight.double() @ x
    return z if head.bias is None else z + head.bias.double()


def signals_of(z: list[float]) -> tuple[int, float, float]:
    """Prediction, confidence and normalised entropy of logits."""
    if any(math.isnan(value) for value in z):
        return next(i for i, value in enumerate(z) if math.isnan(value)), math.nan, math.nan
    prediction = z.index(max(z))
    exponentials = [math.exp(value - z[prediction]) for value in z]
    total = sum(exponentials)
    probabilities = [e / total for e in exponentials]
    if len(z) == 1:
        return 0, 1.0, 0.0
    entropy = -sum(p * math.log(p) for p in probabilities if p > 0) / math.log(len(z))
    return prediction, max(probabilities), entropy


def advance_one(
    score: float,
    previous: int,
    signals: tuple[int, float, float],
    keep: Keep,
    gain: Gain,
    weight: float,
    tau: float,
) -> float:
    """S_i of one sample, read off the table of policies."""
    prediction, confidence, entropy = signals
    agree = float(prediction == previous)
    indicators = {"entropy": float(entropy < tau), "confidence": float(confidence > tau)}
    kept = {
        Keep.NEVER: 0.0,
        Keep.AGREE: agree,
        Keep.ENTROPY_BELOW: indicators["entropy"],
        Keep.CONFIDENCE_ABOVE: indicators["confidence"],
        Keep.ALWAYS: 1.0,
    }[keep]
    gained = {
        Gain.ONE: 1.0,
        Gain.CONFIDENCE: confidence,
        Gain.NEGATIVE_ENTROPY: -entropy,
        Gain.AGREE: agree,
        Gain.ENTROPY_BELOW: indicators["entropy"],
        Gain.CONFIDENCE_ABOVE: indicators["confidence"],
    }[gain]
    return (score if kept else 0.0) + weight * gained


def exit_step(
    hidden, head, table, state, *, exit, layer, keep, gain,
    strict=False, rows=None, positions=None,
):  # fmt: skip
    """`eefast.ops.exit_step` in float64; returns a new state with float64 score and logits."""
    out = ExitState(*(None if t is None else t.clone() for t in state))
    out = out._replace(score=out.score.double())
    if out.logits is not None:
        out = out._replace(logits=out.logits.double())
    weight, threshold, tau = table[exit - 1].tolist()
    for r, sample in enumerate(range(len(hidden)) if rows is None else rows.tolist()):
        if out.exit_layer[sample]:
            continue
        row = hidden[r]
        if row.dim() == 2:
            row = row[0 if positions is None else positions[sample]]
        z = logits_of(row, head)
        now = signals_of(z.tolist())
        s = advance_one(
            out.score[sample].item(), out.prediction[sample].item(), now, keep, gain, weight, tau
        )
        out.score[sample], out.prediction[sample] = s, now[0]
        if exit == len(table) or (s > threshold if strict else s >= threshold):
            out.exit_layer[sample] = layer
            if out.logits is not None:
                out.logits[sample] = z
        else:
            out.running[exit - 1] = True
    return out
