"""BERxiT's objective: which step trains what, and what the certainty learns."""

import pytest
import torch
import torch.nn.functional as F
from transformers import Trainer, TrainingArguments

from eefast import MultiExitOutput
from eefast.training import objective
from tests.models import inputs_for, tiny_model

LABELS = torch.tensor([0, 1])


def by_hand():
    """Two exits, two samples: the first exit is right about sample 0, the second about both."""
    logits = (torch.tensor([[2.0, 0.0], [1.0, 0.0]]), torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
    scores = (torch.tensor([0.9, 0.3]), torch.tensor([0.6, 0.5]))
    tasks = [F.cross_entropy(z, LABELS) for z in logits]
    certainty = [(0.1**2 + 0.3**2) / 2, (0.4**2 + 0.5**2) / 2]
    return MultiExitOutput(exit_logits=logits, exit_scores=scores), tasks, certainty


def test_odd_steps_train_all_exits_and_even_steps_the_last():
    output, tasks, certainty = by_hand()
    loss = objective("berxit")
    every = (sum(tasks) + sum(certainty)).item()
    for _ in range(2):
        assert loss(output, LABELS).item() == pytest.approx(every)
        assert loss(output, LABELS).item() == pytest.approx(tasks[-1].item())


def test_evaluation_is_no_step():
    output, tasks, certainty = by_hand()
    loss = objective("berxit")
    with torch.no_grad():
        for _ in range(3):
            wanted = (sum(tasks) + sum(certainty)).item()
            assert loss(output, LABELS).item() == pytest.approx(wanted)
    loss(output, LABELS)
    assert loss(output, LABELS).item() == pytest.approx(tasks[-1].item())  # the second step


def test_models_count_their_own_steps():
    first, second = objective("berxit"), objective("berxit")
    output, tasks, _ = by_hand()
    first(output, LABELS)
    assert second(output, LABELS) != tasks[-1]


def test_even_steps_leave_the_other_heads_and_the_scorer_alone():
    model = tiny_model(objective="berxit")
    batch = {**inputs_for(model, 3), "labels": torch.tensor([0, 1, 2])}
    model(**batch).loss.backward()
    assert model.heads.scorer.weight.grad.abs().sum() > 0
    assert model.heads.classifiers[0].weight.grad.abs().sum() > 0
    model.zero_grad()
    model(**batch).loss.backward()
    assert model.heads.scorer.weight.grad is None
    assert model.heads.classifiers[0].weight.grad is None
    assert model.heads.classifiers[-1].weight.grad.abs().sum() > 0


def test_under_trainer_each_batch_is_a_step(tmp_path):
    model = tiny_model(objective="berxit")
    seen = []
    model.heads.scorer.weight.register_hook(lambda grad: seen.append(True))
    g = torch.Generator().manual_seed(0)
    rows = [{"input_ids": torch.randint(5, 90, (6,), generator=g), "labels": 1} for _ in range(20)]
    arguments = TrainingArguments(
        output_dir=str(tmp_path), per_device_train_batch_size=4, num_train_epochs=1, use_cpu=True,
        report_to="none", save_strategy="no", dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=rows)
    trainer.train()
    assert len(seen) == 3  # of five batches the first, the third and the fifth
    assert trainer.predict(rows).predictions.shape == (20, 3)  # the last exit's logits, no scores


def test_the_certainty_learns_where_the_exits_are_right():
    """Samples of class 0 are answered rightly, those of class 1 wrongly; q tells them apart."""
    model = tiny_model(classes=2, objective="berxit", head_dropout=0.0).train(False)
    inputs = inputs_for(model, 16)
    with torch.no_grad():
        right = model(**inputs).exit_logits[0].argmax(-1)
    assert 0 < right.sum() < 16
    labels = torch.zeros(16, dtype=torch.int64)  # right where exit 1 predicts 0
    optimizer = torch.optim.Adam(model.heads.scorer.parameters(), lr=0.05)
    loss = objective("berxit")
    for _ in range(300):
        optimizer.zero_grad()
        loss(model(**inputs), labels).backward()
        optimizer.step()
    with torch.no_grad():
        scores = model(**inputs).exit_scores[0]
    assert scores[right == 0].min() > scores[right == 1].max()


def test_it_needs_a_scorer_and_classes():
    output, *_ = by_hand()
    with pytest.raises(ValueError, match=r"no scorer: eefast.attach_exits\(..., scorer_row=True"):
        objective("berxit")(MultiExitOutput(exit_logits=output.exit_logits), LABELS)
    one = MultiExitOutput(exit_logits=(torch.zeros(2, 1),), exit_scores=(torch.zeros(2),))
    with pytest.raises(ValueError, match="needs classes, got one output"):
        objective("berxit")(one, torch.zeros(2))


def test_heads_get_a_scorer_when_the_objective_trains_one():
    assert tiny_model(objective="berxit").heads.scorer is not None
    assert tiny_model().heads.scorer is None
    assert tiny_model(scorer_row=True).heads.scorer is not None
