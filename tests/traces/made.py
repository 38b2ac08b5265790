"""Traces made of numbers, of exits that get better with depth as trained ones do."""

import torch

from eefast import ExitTrace


def learned_trace(exits=5, samples=400, classes=3, seed=0):
    """With learned scores that are high where the exit is right, mostly."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (samples,), generator=g)
    truth = torch.nn.functional.one_hot(labels, classes).float()
    noise = torch.randn(samples, classes, generator=g)
    depth = torch.arange(1, exits + 1).float()[:, None, None]
    own = torch.randn(exits, samples, classes, generator=g)
    logits = depth.sqrt() * truth + 0.7 * noise + 0.5 * own
    right = (logits.argmax(-1) == labels).float()
    scores = torch.sigmoid(2 * right - 1 + torch.randn(exits, samples, generator=g))
    return ExitTrace(logits, labels, scores=scores)


def regression_trace(exits=5, samples=200, seed=0):
    """One output, which settles with depth on the label."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.randn(samples, generator=g)
    depth = torch.arange(1, exits + 1)[:, None]
    return ExitTrace((labels + torch.randn(exits, samples, generator=g) / depth)[..., None], labels)
