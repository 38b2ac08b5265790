"""PCEE-BERT-v2's objective by hand."""

import pytest
import torch
import torch.nn.functional as F

from eefast import MultiExitOutput
from eefast.training import objective
from tests.models import inputs_for, tiny_model

LABELS = torch.tensor([0, 1])
LOGITS = (torch.tensor([[2.0, 0.0], [1.0, 0.0]]), torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
SCORES = (torch.tensor([0.9, 0.3]), torch.tensor([0.6, 0.5]))


def test_pcee_v2_weighs_both_losses_by_depth():
    tasks = [F.cross_entropy(z, LABELS).item() for z in LOGITS]
    certainty = [(0.1**2 + 0.3**2) / 2, (0.4**2 + 0.5**2) / 2]  # exit 1 is wrong about sample 1
    wanted = (tasks[0] + certainty[0] + 2 * (tasks[1] + certainty[1])) / 3
    loss = objective("pcee-v2")
    output = MultiExitOutput(exit_logits=LOGITS, exit_scores=SCORES)
    assert [loss(output, LABELS).item() for _ in range(2)] == [pytest.approx(wanted)] * 2


def test_pcee_v2_trains_all_heads_and_the_scorer_in_every_step():
    model = tiny_model(objective="pcee-v2")
    for _ in range(2):
        model.zero_grad()
        model(**inputs_for(model, 3), labels=torch.tensor([0, 1, 2])).loss.backward()
        assert all(p.grad is not None for p in model.parameters())


def test_pcee_v2_needs_a_scorer_and_classes():
    with pytest.raises(ValueError, match=r"'pcee-v2' trains learned scores.*scorer_row=True"):
        objective("pcee-v2")(MultiExitOutput(exit_logits=LOGITS), LABELS)
    one = MultiExitOutput(exit_logits=(torch.zeros(2, 1),), exit_scores=(torch.zeros(2),))
    with pytest.raises(ValueError, match="needs classes, got one output"):
        objective("pcee-v2")(one, torch.zeros(2))
