"""Every paper's rule, written from the paper for one sample, against the policy of its name."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eefast import ExitTrace, simulate
from eefast.policies import (
    BEEM,
    PABEE,
    PALBERT,
    PCEE,
    ZTW,
    BERxiT,
    BranchyNet,
    Confidence,
    DeeBERT,
    EEICPatience,
    ElasticBERT,
    Entropy,
    FastBERT,
    LeeBERT,
    MSDNet,
    PCEEv1,
    PCEEv2,
    RightTool,
    ShallowDeep,
)

EXITS, CLASSES = 4, 3
LN = math.log(CLASSES)


def softmax(z):
    exponentials = [math.exp(value - max(z)) for value in z]
    return [e / sum(exponentials) for e in exponentials]


def nats(p):
    return -sum(value * math.log(value) for value in p)


def best(values):
    return values.index(max(values))


def normal(values):
    return [value / sum(values) for value in values]


# A rule gets the logits and learned scores of one sample and gives for each exit: the numbers that
# it compares, each with what it is compared to; whether the sample leaves; and the probabilities
# that answer. Where numbers are too close to tell in float32, the sample is skipped.


def thresholded(value, leaves, threshold):
    """Judges each exit by a number of its own."""

    def rule(z, q):
        for row, score in zip(z, q, strict=True):
            p = softmax(row)
            v = value(p, score)
            yield [(v, threshold)], leaves(v, threshold), p

    return rule


def below(a, b):
    return a < b


def above(a, b):
    return a > b


def at_most(a, b):
    return a <= b


def at_least(a, b):
    return a >= b


def per_exit(value, leaves, thresholds):
    def rule(z, q):
        for row, threshold in zip(z, thresholds, strict=True):
            p = softmax(row)
            yield [(value(p, None), threshold)], leaves(value(p, None), threshold), p

    return rule


def patience(t):
    def rule(z, q):
        count, before = 0, None
        for row in z:
            count = count + 1 if best(row) == before else 0
            before = best(row)
            yield [], count >= t, softmax(row)

    return rule


def beem(weights, alpha):
    def rule(z, q):
        s, before = 0.0, None
        for w, row in zip(weights, z, strict=True):
            p = softmax(row)
            s = s + w * max(p) if best(row) == before else w * max(p)
            before = best(row)
            yield [(s, alpha)], s >= alpha, p

    return rule


def confident_in_a_row(t, value, is_confident, tau, ensemble=None):
    def rule(z, q):
        streak, everything = [], []
        for row, score in zip(z, q, strict=True):
            p = softmax(row)
            v = value(p, score)
            everything.append(p)
            streak = [*streak, p] if is_confident(v, tau) else []
            members = {None: [p], "all": everything, "streak": streak or [p]}[ensemble]
            answer = [sum(column) / len(members) for column in zip(*members, strict=True)]
            # A tie of means is rounding, a tie of one exit's logits is a tie.
            ties = [tuple(sorted(answer)[-2:])] if len(members) > 1 else []
            yield [(v, tau), *ties], len(streak) >= t, answer

    return rule


def tempered(temperatures, tau):
    def rule(z, q):
        for t, row in zip(temperatures, z, strict=True):
            p = softmax([value / t for value in row])
            yield [(max(p), tau)], max(p) >= tau, p

    return rule


def most_confident_at_the_end(tau):
    def rule(z, q):
        ps = [softmax(row) for row in z]
        for p in ps[:-1]:
            yield [(max(p), tau)], max(p) >= tau, p
        ranked = sorted(max(p) for p in ps)
        yield list(pairwise(ranked))[-1:], True, max(ps, key=max)

    return rule


def geometric_ensemble(weights, tau, plain_last):
    def rule(z, q):
        ps = [softmax(row) for row in z]
        for i in range(1, EXITS + 1):
            total = sum(weights[:i])
            p = [1.0] * CLASSES
            for w, own in zip(weights[:i], ps, strict=False):
                p = [a * b ** (w / total) if total else b for a, b in zip(p, own, strict=True)]
            p = ps[-1] if i == EXITS and plain_last else normal(p)
            # Beside a weight of 2^24 the others still break a tie.
            yield [(max(p), tau), tuple(sorted(p)[-2:])], max(p) > tau, p

    return rule


def cumulative(threshold):
    def rule(z, q):
        stays = 1.0
        for row, score in zip(z, q, strict=True):
            stays *= 1 - score
            yield [(1 - stays, threshold)], 1 - stays > threshold, softmax(row)

    return rule


def max_p(p, q):
    return max(p)


def entropy(p, q):
    return nats(p)


def normal_entropy(p, q):
    return nats(p) / LN


def learned(p, q):
    return q


WEIGHTS, THRESHOLDS = [0.25, 0.5, 0.75, 1.0], [0.9, 0.5, 0.7, 0.6]
RULES = [
    (BEEM(WEIGHTS, 0.9), beem(WEIGHTS, 0.9)),
    (PABEE(1), patience(1)),
    (PABEE(0), patience(EXITS)),  # runs all layers
    (LeeBERT(2), patience(2)),
    (EEICPatience(3), patience(3)),
    (ElasticBERT(patience=2), patience(2)),
    (Confidence(0.7), thresholded(max_p, at_least, 0.7)),
    (MSDNet(THRESHOLDS), per_exit(max_p, at_least, THRESHOLDS)),
    (ShallowDeep(0.7), most_confident_at_the_end(0.7)),
    (ShallowDeep(1.1), most_confident_at_the_end(1.1)),
    (RightTool(0.7), tempered([1.0] * EXITS, 0.7)),
    (RightTool(0.8, [2.0, 0.5, 1.0, 4.0]), tempered([2.0, 0.5, 1.0, 4.0], 0.8)),
    (Entropy(0.5), thresholded(normal_entropy, below, 0.5)),
    (FastBERT(0.5), thresholded(normal_entropy, at_most, 0.5)),
    (DeeBERT(0.6, num_classes=3), thresholded(entropy, below, 0.6)),
    (ElasticBERT(0.4, num_classes=3), thresholded(entropy, below, 0.4)),
    (BranchyNet(THRESHOLDS, num_classes=3), per_exit(entropy, below, THRESHOLDS)),
    (BERxiT(0.7), thresholded(learned, at_least, 0.7)),
    (PALBERT(), cumulative(0.5)),
    (PALBERT(0.8), cumulative(0.8)),
    (ZTW(0.6), geometric_ensemble([1.0] * EXITS, 0.6, False)),
    (ZTW(0.7, [0.0, 0.5, 2.0, 1.0]), geometric_ensemble([0.0, 0.5, 2.0, 1.0], 0.7, False)),
    (ZTW(0.8, [0.3, 1.0, 2.0, 0.5], True), geometric_ensemble([0.3, 1, 2, 0.5], 0.8, True)),
    (PCEE(2, 0.6), confident_in_a_row(2, normal_entropy, below, 0.6)),
    (PCEE(1, 0.4, "confidence"), confident_in_a_row(1, max_p, above, 0.4)),
    (PCEE(2, 0.7, ensemble="all"), confident_in_a_row(2, normal_entropy, below, 0.7, "all")),
    (PCEE(2, 0.7, ensemble="streak"), confident_in_a_row(2, normal_entropy, below, 0.7, "streak")),
    (PCEEv1(2, 0.6), confident_in_a_row(2, max_p, above, 0.6)),
    (PCEEv1(3, 0.5, ensemble="streak"), confident_in_a_row(3, max_p, above, 0.5, "streak")),
    (PCEEv2(2, 0.4), confident_in_a_row(2, learned, above, 0.4)),
    (PCEEv2(2, 0.4, ensemble="streak"), confident_in_a_row(2, learned, above, 0.4, "streak")),
    (PCEEv2(3, 0.3, ensemble="all"), confident_in_a_row(3, learned, above, 0.3, "all")),
]
row = st.lists(st.floats(-4, 4, width=16), min_size=CLASSES, max_size=CLASSES)
samples = st.lists(
    st.tuples(
        st.lists(row, min_size=EXITS, max_size=EXITS),
        st.lists(st.floats(0, 1, width=16), min_size=EXITS, max_size=EXITS),
    ),
    min_size=1,
    max_size=8,
)


def by_the_paper(rule, z, q):
    """Exit and answer; None where float32 may decide otherwise."""
    for exit, (compared, leaves, p) in enumerate(rule(z, q), 1):
        if any(abs(a - b) < 1e-4 for a, b in compared):
            return None
        if leaves or exit == EXITS:
            first, second = sorted(p)[-2:]
            # Logits that tie exactly tie in the policy, too: the lowest class.
            return None if 0 < second - first < 1e-5 else (exit, best(p))
    raise AssertionError


@pytest.mark.parametrize(("policy", "rule"), RULES, ids=[repr(policy) for policy, _ in RULES])
@settings(max_examples=25)
@given(samples)
def test_a_batch_is_decided_as_the_paper_decides_each_sample(policy, rule, batch):
    z = torch.tensor([sample[0] for sample in batch]).transpose(0, 1)
    q = torch.tensor([sample[1] for sample in batch]).T
    outcome = simulate(policy, ExitTrace(z, torch.zeros(len(batch)).long(), scores=q))
    for n, sample in enumerate(batch):
        wanted = by_the_paper(rule, *sample)
        if wanted is not None:
            assert (outcome.exit[n].item(), outcome.prediction[n].item()) == wanted


def sequence(probabilities, scores=None):
    """A trace of one sample of two classes: the probability of class 1 at each exit."""
    p = torch.tensor(probabilities, dtype=torch.float64)
    z = torch.stack([1 - p, p], -1).log()[:, None]
    q = None if scores is None else torch.tensor(scores)[:, None]
    return ExitTrace(z, torch.ones(1).long(), scores=q)


ENTROPIES = [0.6, 0.3, 0.2, 0.9]  # in nats .673 .611 .500 .325, over ln 2 .971 .881 .722 .469


@pytest.mark.parametrize(
    ("policy", "p", "q", "exit", "answer"),
    [
        (LeeBERT(2), [0.6, 0.7, 0.8, 0.2], None, 3, 1),
        (LeeBERT(2), [0.6, 0.3, 0.2, 0.9], None, 4, 1),
        (EEICPatience(1), [0.6, 0.3, 0.2, 0.9], None, 3, 0),
        (ElasticBERT(patience=2), [0.6, 0.7, 0.8, 0.2], None, 3, 1),
        (ElasticBERT(patience=0), [0.6, 0.7, 0.8, 0.9], None, 4, 1),
        (BranchyNet(0.55, num_classes=2), ENTROPIES, None, 3, 0),
        (BranchyNet([0.6, 0.62, 0.1, 0.1], num_classes=2), ENTROPIES, None, 2, 0),
        (DeeBERT(0.4, num_classes=2), ENTROPIES, None, 4, 1),
        (DeeBERT(0.68, num_classes=2), ENTROPIES, None, 1, 1),
        (ElasticBERT(0.55, num_classes=2), ENTROPIES, None, 3, 0),
        (FastBERT(0.9), ENTROPIES, None, 2, 0),
        (FastBERT(0.73), ENTROPIES, None, 3, 0),
        (MSDNet([0.9, 0.75, 0.8, 0.0]), ENTROPIES, None, 3, 0),
        (ShallowDeep(0.75), ENTROPIES, None, 3, 0),
        (ShallowDeep(0.95), ENTROPIES, None, 4, 1),
        (ShallowDeep(0.95), [0.6, 0.1, 0.2, 0.7], None, 4, 0),  # exit 2 was surest
        (ShallowDeep(0.95), [0.8, 0.2, 0.2, 0.8], None, 4, 1),  # the earliest among equals
        (RightTool(0.75, [1, 0.5, 1, 1]), ENTROPIES, None, 2, 0),  # .3 becomes 9/58
        (RightTool(0.75, [1, 1, 2, 2]), ENTROPIES, None, 4, 1),  # .2 becomes 1/3
        (RightTool(0.65, 2), [0.6, 0.9, 0.2, 0.1], None, 2, 1),  # .9 becomes 3/4
        (ZTW(0.62), ENTROPIES, None, 3, 0),  # odds 3/2, 3/7, 1/4: mean .541, confidence .649
        (ZTW(0.7), [0.6, 0.3, 0.2, 0.6], None, 4, 0),
        (ZTW(0.7, plain_last=True), [0.6, 0.3, 0.2, 0.6], None, 4, 1),
        (ZTW(0.7, [0, 1, 1, 1]), ENTROPIES, None, 3, 0),  # the first exit alone stands for itself
        (PALBERT(), [0.6, 0.3, 0.2, 0.9], [0.2, 0.3, 0.2, 0.1], 3, 0),  # cdf .2 .44 .552
        (PALBERT(0.6), [0.6, 0.3, 0.2, 0.9], [0.2, 0.3, 0.2, 0.1], 4, 1),
        (PCEEv1(2, 0.65), [0.7, 0.3, 0.2, 0.9], None, 2, 0),
        (PCEEv2(2, 0.6), [0.6, 0.3, 0.2, 0.9], [0.7, 0.5, 0.8, 0.9], 4, 1),
        (PCEEv2(2, 0.4), [0.6, 0.3, 0.2, 0.9], [0.3, 0.5, 0.8, 0.9], 3, 0),
        (PCEEv1(2, 0.65), [0.4, 0.1, 0.7, 0.9], None, 3, 1),
        (PCEEv1(2, 0.65, ensemble="all"), [0.4, 0.1, 0.7, 0.9], None, 3, 0),  # mean .4
        (PCEEv1(2, 0.65, ensemble="streak"), [0.2, 0.4, 0.9, 0.3], None, 4, 1),  # mean .6
        (PCEEv1(2, 0.65, ensemble="all"), [0.2, 0.4, 0.9, 0.3], None, 4, 0),  # mean .45
        (PCEEv1(3, 0.65, ensemble="streak"), [0.9, 0.9, 0.9, 0.4], None, 3, 1),
        (PCEEv1(4, 0.65, ensemble="streak"), [0.9, 0.9, 0.9, 0.4], None, 4, 0),  # reset at the last
    ],
    ids=repr,
)
def test_by_hand(policy, p, q, exit, answer):
    outcome = simulate(policy, sequence(p, q))
    assert (outcome.exit.item(), outcome.prediction.item()) == (exit, answer)


@pytest.mark.parametrize(
    ("policy", "exit"),
    [
        (Confidence(0.5), 1),
        (MSDNet(0.5), 1),
        (ShallowDeep(0.5), 1),
        (RightTool(0.5), 1),
        (FastBERT(1.0), 1),
        (BERxiT(0.5), 1),
        (ZTW(0.5), 4),
        (Entropy(1.0), 4),
        (BranchyNet(math.log(2), num_classes=2), 4),
        (DeeBERT(math.log(2), num_classes=2), 4),
        (ElasticBERT(math.log(2), num_classes=2), 4),
        (PALBERT(0.5), 2),  # the cdf is 1/2, then 3/4
        (PCEE(1, 1.0), 4),
        (PCEEv1(1, 0.5), 4),
        (PCEEv2(1, 0.5), 4),
    ],
    ids=repr,
)
def test_whether_equality_leaves_is_the_papers(policy, exit):
    """Confidence and learned score are 1/2, the normalised entropy is 1, all exactly."""
    trace = ExitTrace(torch.zeros(4, 1, 2), torch.zeros(1).long(), scores=torch.full((4, 1), 0.5))
    assert simulate(policy, trace).exit.item() == exit
