"""Trainer's evaluation: the accuracy of each exit, and of the last one as for any classifier."""

import pytest
import torch
from transformers import Trainer, TrainingArguments

from eefast import record_trace
from eefast.training import exit_accuracies, exit_correlations
from tests.models import inputs_for, tiny_model


def evaluated(model, compute_metrics, folder):
    inputs, labels = inputs_for(model, 10), torch.arange(10) % 3
    labels = labels / 2 if model.num_classes == 1 else labels
    rows = [
        {"input_ids": ids, "attention_mask": mask, "labels": labels[i]}
        for i, (ids, mask) in enumerate(zip(*inputs.values(), strict=True))
    ]
    arguments = TrainingArguments(
        output_dir=str(folder), use_cpu=True, per_device_eval_batch_size=4, report_to="none"
    )
    trainer = Trainer(model, arguments, eval_dataset=rows, compute_metrics=compute_metrics)
    return trainer.evaluate(), record_trace(model, [{**inputs, "labels": labels}])


def test_trainer_reports_the_accuracy_of_each_exit(tmp_path):
    model = tiny_model()
    metrics, trace = evaluated(model, exit_accuracies(model), tmp_path)
    wanted = trace.accuracies().tolist()
    assert [metrics[f"eval_exit_{exit}_accuracy"] for exit in range(1, 5)] == pytest.approx(wanted)
    assert metrics["eval_accuracy"] == pytest.approx(wanted[-1])


def test_other_metrics_get_the_last_exits_logits(tmp_path):
    def accuracy(evaluated):
        return {"accuracy": (evaluated.predictions.argmax(-1) == evaluated.label_ids).mean()}

    metrics, trace = evaluated(tiny_model(), accuracy, tmp_path)
    assert metrics["eval_accuracy"] == pytest.approx(trace.accuracies()[-1].item())


def test_trainer_reports_the_correlations_of_each_exit_of_a_regression(tmp_path):
    model = tiny_model(classes=1)
    metrics, trace = evaluated(model, exit_correlations(model), tmp_path)
    for name in ("pearson", "spearman"):
        wanted = trace.metric(name).tolist()
        got = [metrics[f"eval_exit_{exit}_{name}"] for exit in range(1, 5)]
        assert got == pytest.approx(wanted, abs=1e-5)
        assert metrics[f"eval_{name}"] == got[-1]


def test_exit_accuracies_are_of_multi_exit_classifiers():
    with pytest.raises(TypeError, match="must be a MultiExitModel, got BertModel"):
        exit_accuracies(tiny_model().backbone)
    with pytest.raises(ValueError, match=r"has no accuracy: use .*exit_correlations\(model\)"):
        exit_accuracies(tiny_model(classes=1))
    with pytest.raises(ValueError, match=r"got 3 classes: use .*exit_accuracies\(model\)"):
        exit_correlations(tiny_model())
