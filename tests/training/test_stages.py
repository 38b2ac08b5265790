"""Stages: what each trains and by which loss, and that afterwards all is as before."""

import pytest
import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from eefast import MultiExitModel
from eefast.training import Stage, TrainingProgress, register_objective, stages
from tests.models import inputs_for, tiny_model

LABELS = torch.tensor([0, 1, 2])


def trainable(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def with_gradients(model):
    """The names of the parameters that a training step gives gradients."""
    model.zero_grad()
    model(**inputs_for(model, 3), labels=LABELS).loss.backward()
    return {name for name, parameter in model.named_parameters() if parameter.grad is not None}


def rows(count=16):
    g = torch.Generator().manual_seed(0)
    return [
        {"input_ids": torch.randint(5, 90, (6,), generator=g), "labels": i % 3}
        for i in range(count)
    ]


def trainer(model, folder, **options):
    arguments = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=4, num_train_epochs=1, use_cpu=True,
        report_to="none", save_strategy="no", dataloader_pin_memory=False, learning_rate=1e-2,
    )  # fmt: skip
    return Trainer(model, arguments, train_dataset=rows(), **options)


@pytest.mark.parametrize("options", [{}, dict(head="pooler"), dict(share_pooler=True)])
@pytest.mark.parametrize("name", ["deebert", "fastbert"])
def test_first_the_backbone_and_the_last_head_then_the_other_heads(name, options):
    if options.get("share_pooler"):
        options = dict(head="pooler", share_pooler=True)
    model = tiny_model(objective=name, **options).train()
    everything = trainable(model)
    of_last = {n for n in everything if n.startswith("heads.") and ".3." in n}
    of_last |= {n for n in everything if n.startswith("heads.poolers.0") and len(options) == 2}
    backbone = {n for n in everything if n.startswith("backbone.")}
    trained = []
    for stage in stages(model):
        assert with_gradients(model) == trainable(model)
        trained.append((stage.name, trainable(model)))
    assert trained == [
        ("backbone", backbone | of_last),
        ("exits", everything - backbone - of_last),
    ]
    assert trainable(model) == everything


def test_an_objective_of_one_stage_trains_everything():
    model = tiny_model(objective="weighted").train()
    loss = model(**inputs_for(model, 3), labels=LABELS).loss
    (name,) = [stage.name for stage in stages(model) if with_gradients(model) == trainable(model)]
    assert name == "training"
    assert loss.item() > 0


def test_the_loss_is_the_stages_and_outside_of_them_their_sum():
    model = tiny_model(objective="deebert")
    batch = {**inputs_for(model, 3), "labels": LABELS}
    each = [nn.functional.cross_entropy(z, LABELS) for z in model(**batch).exit_logits]
    losses = [model(**batch).loss.item() for _ in stages(model)]
    assert losses == [
        pytest.approx(each[3].item()),
        pytest.approx(sum(each[:3]).item(), rel=1e-5),
    ]
    assert model(**batch).loss.item() == pytest.approx(sum(each).item(), rel=1e-5)


def test_what_was_frozen_stays_frozen_however_the_loop_is_left():
    model = tiny_model(objective="deebert").train()
    model.backbone.embeddings.requires_grad_(False)
    before = trainable(model)
    for stage in stages(model):
        assert not any("embeddings" in name for name in trainable(model))
        if stage.name == "exits":
            break
    assert trainable(model) == before
    assert model.stage is None

    def interrupted():
        for _ in stages(model):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert trainable(model) == before
    assert model.stage is None


def test_each_stage_is_a_training_of_trainer(tmp_path):
    model = tiny_model(objective="fastbert")
    first = {name: p.detach().clone() for name, p in model.named_parameters()}
    changed = []
    for _ in stages(model):
        trainer(model, tmp_path).train()
        now = {name: p.detach().clone() for name, p in model.named_parameters()}
        changed.append({name for name in now if not torch.equal(now[name], first[name])})
        first = now
    last = {"heads.classifiers.3.weight", "heads.classifiers.3.bias"}
    assert last <= changed[0]
    assert not any("classifiers.0" in name for name in changed[0])
    assert changed[1] == {
        f"heads.classifiers.{i}.{p}" for i in range(3) for p in ("weight", "bias")
    }


def test_several_stages_are_never_half_trained_by_one_plain_trainer(tmp_path):
    model = tiny_model(objective="deebert")
    with pytest.raises(
        ValueError,
        match=r"'deebert' has 2 stages \('backbone', 'exits'\), and none is current: for",
    ):
        trainer(model, tmp_path).train()


def test_errors_of_stages():
    with pytest.raises(TypeError, match="must be a MultiExitModel, got Linear"):
        next(stages(nn.Linear(1, 1)))
    model = tiny_model(objective="deebert")
    for _ in stages(model):
        with pytest.raises(ValueError, match="stage 'backbone' of the model is current"):
            next(stages(model))
        break
    assert next(stages(model)).name == "backbone"
    with pytest.raises(ValueError, match=r"'exits' of objective 'deebert' has nothing to train"):
        list(stages(tiny_model(objective="deebert", share_head=True)))
    model = tiny_model(objective="deebert")
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="'backbone' of objective 'deebert' has nothing to train"):
        list(stages(model))


@register_objective("test-temperatures")
class Temperatures(nn.Module):
    """A temperature per exit, learned; its stages: the temperatures, then everything."""

    def __init__(self, exits, *, start=2.0):
        super().__init__()
        self.exits = exits
        self.progress = None
        self.seen = []
        self.raw = nn.Parameter(torch.full((exits.count,), float(start)))
        self.mixed = nn.Linear(exits.num_classes, exits.num_classes)
        self.stages = (
            Stage("temperatures", self.loss, lambda model: [model.objective.raw]),
            Stage("all", self.loss),
        )

    def loss(self, output, labels):
        self.seen.append(self.progress)
        losses = [
            nn.functional.cross_entropy(self.mixed(z) / t, labels)
            for z, t in zip(output.exit_logits, self.raw, strict=True)
        ]
        return torch.stack(losses).sum()


def test_a_modules_parameters_are_the_models(tmp_path):
    torch.manual_seed(7)
    model = tiny_model(objective="test-temperatures", objective_options={"start": 3.0})
    assert model.objective.exits.layers == (1, 2, 3, 4)
    assert model.objective.exits.costs == (1, 1, 1, 1)
    assert model.objective.exits.num_classes == 3
    assert model.objective.raw.tolist() == [3.0] * 4
    assert model.objective.mixed.bias.abs().min() > 0  # its own start, not transformers'
    for stage in stages(model):
        if stage.name == "temperatures":
            assert with_gradients(model) == {"objective.raw"}
        trainer(model, tmp_path / "runs", callbacks=[TrainingProgress()]).train()
        assert (model.objective.raw - 3).abs().min() > 1e-4
    model.eval().save_pretrained(tmp_path / "saved")
    loaded = MultiExitModel.from_pretrained(tmp_path / "saved")
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    batch = {**inputs_for(model, 3), "labels": LABELS}
    assert torch.equal(loaded(**batch).loss, model(**batch).loss)


def test_progress_goes_from_0_to_1_in_each_stage(tmp_path):
    model = tiny_model(objective="test-temperatures")
    for _ in stages(model):
        trainer(model, tmp_path, callbacks=[TrainingProgress()]).train()
        assert model.objective.seen == [0, 0.25, 0.5, 0.75]
        assert model.objective.progress is None
        model.objective.seen.clear()
        with pytest.raises(ValueError, match=r"'test-temperatures' changes .*TrainingProgress\(\)"):
            trainer(model, tmp_path).train()
    trainer(tiny_model(), tmp_path, callbacks=[TrainingProgress()]).train()  # has no use for it
