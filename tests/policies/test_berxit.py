"""BERxiT: the learned score decides, and nothing else."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eefast import ExitTrace, simulate
from eefast.policies import BERxiT


def trace_of(scores, seed=0):
    scores = torch.tensor(scores, dtype=torch.float32).T
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(*scores.shape, 3, generator=g)
    return ExitTrace(logits, torch.zeros(scores.shape[1], dtype=torch.int64), scores=scores)


def test_by_hand():
    trace = trace_of([[0.1, 0.95, 0.2], [0.9, 0.0, 0.0], [0.89, 0.8, 0.1], [0.0, 0.0, 1.0]])
    outcome = simulate(BERxiT(0.9), trace)
    assert outcome.exit.tolist() == [2, 1, 3, 3]  # equality leaves
    assert outcome.score.tolist() == pytest.approx([0.95, 0.9, 0.1, 1.0])
    answers = trace.logits[outcome.exit - 1, torch.arange(4)].argmax(-1)
    assert torch.equal(outcome.prediction, answers)


@given(
    st.lists(st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4), min_size=1, max_size=6),
    st.floats(0, 1, width=32),
)
def test_the_first_certain_exit_answers(scores, threshold):
    outcome = simulate(BERxiT(threshold), trace_of(scores))
    for n, row in enumerate(scores):
        wanted = next((i for i, q in enumerate(row, 1) if q >= threshold), 4)
        assert outcome.exit[n] == wanted


def test_a_trace_without_scores_is_refused():
    trace = trace_of([[0.5, 0.5]])
    bare = ExitTrace(trace.logits, trace.labels)
    with pytest.raises(ValueError, match=r"'berxit' reads learned scores and got none.*keep="):
        simulate(BERxiT(0.5), bare)


def test_one_threshold_per_exit():
    trace = trace_of([[0.5, 0.5, 0.5]])
    assert simulate(BERxiT([0.6, 0.4, 0.0]), trace).exit.item() == 2
