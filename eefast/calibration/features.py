"""What learned gates and scorers read, of a whole trace at once."""

from __future__ import annotations

import torch
from torch import Tensor

from eefast.ops import signals
from eefast.ops.signals import network_features
from eefast.policies import Policy
from eefast.traces import ExitTrace


def features_of(trace: ExitTrace) -> Tensor:
    """Of every exit what a NETWORK scorer reads, but for earlier scores, [L, N, C + 3] float32.

    An infinite logit makes NaN of some; they are 0 here, so that nothing learned becomes NaN.
    """
    features, votes = [], torch.zeros_like(trace.logits[0])
    earlier = votes.new_empty(len(votes), 0)
    for logits in trace.logits:
        now = signals(logits)
        votes = votes.scatter_add(1, now.prediction[:, None], torch.ones_like(votes[:, :1]))
        features.append(network_features(logits, now, votes, earlier))
    return torch.stack(features).nan_to_num(0.0)


def scores_of(policy: Policy, trace: ExitTrace) -> Tensor:
    """The score of every sample at every exit, [L, N] float32, as if none had left before."""
    samples, exits = len(trace.labels), trace.num_exits
    table, recurrence = policy.table(exits), policy.recurrence
    values = recurrence.start(samples, trace.num_classes, exits, trace.logits.device)
    table = table.to(trace.logits.device)
    scores = []
    for exit in range(1, exits + 1):
        logits, scorer = trace.logits[exit - 1], policy.scorer_weights(exit)
        values = recurrence.step(values, logits, table, exit, scorer=scorer).values
        scores.append(values.score)
    return torch.stack(scores)
