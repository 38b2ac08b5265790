"""EENet's policy: its network is Eq. 5 to 9, in every implementation, and it is saved whole."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import eefast
from eefast import ExitTrace, MultiExitModel, record_trace, simulate
from eefast.calibration.features import scores_of
from eefast.calibration.quotas import quota_thresholds
from eefast.policies import EENet, ScorerKind, policy_from_dict
from eefast.policies.eenet import network
from tests.models import inputs_for, tiny_model
from tests.ops.cases import IMPLS
from tests.ops.oracle import signals_of

EXITS, CLASSES = 4, 3


def matrices(seed=0, classes=CLASSES):
    """W^sh, W^g of every exit; D_h = 5."""
    g = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(5, classes + k + 2, generator=g), torch.randn(5, generator=g))
        for k in range(1, EXITS + 1)
    ]


def made(seed=0, thresholds=0.6):
    return EENet(thresholds, tuple(network(*pair) for pair in matrices(seed)))


def plainly(z, weights):
    """q_1 to q_K of one sample, read off Eq. 5 to 9."""
    scores, votes = [], [0] * CLASSES
    for k, (row, (shared, utility)) in enumerate(zip(z, weights, strict=True), 1):
        prediction, maximum, entropy = signals_of(row)
        votes[prediction] += 1
        p = torch.tensor(row, dtype=torch.float64).softmax(-1).tolist()
        features = [*p, maximum, 1 - entropy, max(votes) / k, *scores]
        total = 0.0
        for row_of_shared, out in zip(shared.tolist(), utility.tolist(), strict=True):
            unit = sum(w * f for w, f in zip(row_of_shared, features, strict=True))
            total += out * (max(0.0, unit) + 0.01 * min(0.0, unit))
        scores.append(1 / (1 + math.exp(-total)))
    return scores


row = st.lists(st.floats(-4, 4, width=16), min_size=CLASSES, max_size=CLASSES)


@given(st.lists(row, min_size=EXITS, max_size=EXITS), st.integers(0, 10**6))
def test_it_leaves_where_equation_9_reaches_the_threshold(z, seed):
    scores = plainly(z, matrices(seed))
    thresholds = [0.7, 0.6, 1.5, -math.inf]
    if any(abs(q - t) < 1e-4 for q, t in zip(scores, thresholds, strict=True)):
        return
    exit = next(k for k, (q, t) in enumerate(zip(scores, thresholds, strict=True), 1) if q >= t)
    trace = ExitTrace(torch.tensor(z)[:, None], torch.zeros(1, dtype=torch.int64))
    outcome = simulate(made(seed, thresholds), trace)
    assert outcome.exit.item() == exit
    assert outcome.score.item() == pytest.approx(scores[exit - 1], abs=1e-4)
    assert outcome.prediction.item() == signals_of(z[exit - 1])[0]


@pytest.mark.parametrize("impl", [impl for impl in IMPLS if impl != "cuda"])
@pytest.mark.parametrize("networks", [True, False], ids=["network", "max"])
def test_compiled_it_leaves_where_simulation_says(impl, networks):
    model = tiny_model()
    inputs = inputs_for(model, 40)
    trace = record_trace(model, [{**inputs, "labels": torch.zeros(40, dtype=torch.int64)}])
    policy = made() if networks else EENet(0.0)
    thresholds = quota_thresholds(scores_of(policy, trace), torch.full((4,), 0.25))
    policy = replace(policy, thresholds=[t - 1e-5 for t in thresholds])  # apart from all scores
    fast = eefast.compile(model, policy=policy, impl=impl)
    wanted = simulate(policy, trace).exit
    assert set(wanted.tolist()) == {1, 2, 3, 4}
    rows = torch.arange(40)
    if impl == "triton":  # its interpreter is slow: one sample for each exit
        rows = torch.stack([(wanted == exit).nonzero()[0, 0] for exit in (4, 1, 3, 2)])
    out = fast(**{name: values[rows] for name, values in inputs.items()})
    assert torch.equal(out.exit_layer.long(), wanted[rows])


def test_it_is_saved_and_loaded_whole(tmp_path):
    model, policy = tiny_model(), made(thresholds=(0.6, math.inf, 1.5, -math.inf))
    model.set_policy(policy)
    model.save_pretrained(tmp_path)
    loaded = MultiExitModel.from_pretrained(tmp_path).get_policy("eenet")
    assert loaded == policy
    assert loaded != replace(policy, thresholds=(0.6, math.inf, 1.4, -math.inf))
    other = made(seed=1, thresholds=policy.thresholds)
    assert loaded != other
    assert len({loaded, policy, other}) == 2
    bare = EENet(0.9)
    assert policy_from_dict(bare.to_dict()) == bare
    assert bare.scorer is ScorerKind.NONE
    assert bare != replace(policy, thresholds=0.9)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: EENet(math.nan), "thresholds must be in"),
        (lambda: EENet(0.5, torch.zeros(4, 8)), "networks must be a tensor for each exit, got Ten"),
        (lambda: EENet(0.5, (1.0,)), "networks must be a tensor for each exit, got tuple"),
        (lambda: made().check(3, CLASSES), "there are 4 networks, the model has 3 exits"),
        (lambda: made().check(EXITS, 5), r"scorer_weights\(1\) must be \[H, 10\] for 5 classes"),
    ],
)
def test_errors_name_the_argument(make, words):
    with pytest.raises(ValueError, match=words):
        make()
