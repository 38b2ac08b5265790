"""Trainer's evaluation: the accuracy of each exit, and of the last one as for any classifier."""

import pytest
import torch
from transformers import Trainer, TrainingArguments

from eefast import record_trace
from eefast.training import exit_accuracies
from tests.models import inputs_for, tiny_model


def evaluated(model, compute_metrics, folder):
    inputs = inputs_for(model, 10)
    rows = [
        {"input_ids": ids, "attention_mask": mask, "labels": i % 3}
        for i, (ids, mask) in enumerate(zip(*inputs.values(), strict=True))
    ]
    arguments = TrainingArguments(
        output_dir=str(folder), use_cpu=True, per_device_eval_batch_size=4, report_to="none"
    )
    trainer = Trainer(model, arguments, eval_dataset=rows, compute_metrics=compute_metrics)
    batch = {**inputs, "labels": torch.arange(10) % 3}
    return trainer.evaluate(), record_trace(model, [batch]).accuracies().tolist()


def test_trainer_reports_the_accuracy_of_each_exit(tmp_path):
    model = tiny_model()
    metrics, wanted = evaluated(model, exit_accuracies(model), tmp_path)
    assert [metrics[f"eval_exit_{exit}_accuracy"] for exit in range(1, 5)] == pytest.approx(wanted)
    assert metrics["eval_accuracy"] == pytest.approx(wanted[-1])


def test_other_metrics_get_the_last_exits_logits(tmp_path):
    def accuracy(evaluated):
        return {"accuracy": (evaluated.predictions.argmax(-1) == evaluated.label_ids).mean()}

    metrics, wanted = evaluated(tiny_model(), accuracy, tmp_path)
    assert metrics["eval_accuracy"] == pytest.approx(wanted[-1])


def test_exit_accuracies_are_of_multi_exit_classifiers():
    with pytest.raises(TypeError, match="must be a MultiExitModel, got BertModel"):
        exit_accuracies(tiny_model().backbone)
    with pytest.raises(ValueError, match="regression model has no accuracy"):
        exit_accuracies(tiny_model(classes=1))
