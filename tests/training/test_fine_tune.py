"""Fine-tuning: memory and disk hold the same model; what was not written to its end is no model."""

import errno
import json
import math
import resource
import sys

import pytest
import torch
from datasets import Dataset
from transformers import BertTokenizerFast, Trainer

from eefast import MultiExitModel
from eefast.training.fine_tune import fine_tune, is_finished
from tests.models import tiny_model


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(90))]
    path = tmp_path_factory.mktemp("tokenizer") / "vocab.txt"
    path.write_text("\n".join(words))
    return BertTokenizerFast(str(path))


@pytest.fixture(scope="module")
def at_once(tokenizer, tmp_path_factory):
    """The folder of a model that was trained without an interruption."""
    out = tmp_path_factory.mktemp("at-once") / "out"
    fine_tune(tiny_model(), tokenizer, rows(), out, batch_size=8)
    return out


def rows(count=32):
    g = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 90, (count, 6), generator=g)
    return Dataset.from_dict({"input_ids": ids.tolist(), "labels": (ids[:, 1] % 3).tolist()})


def test_the_model_in_memory_is_the_model_on_disk(tokenizer, tmp_path):
    model, ids = tiny_model(), torch.randint(5, 90, (4, 6))
    before = model(ids).logits
    fine_tune(model, tokenizer, rows(), tmp_path / "out", batch_size=8, learning_rate=1e-3)
    after = model(ids).logits
    assert not torch.allclose(before, after)
    assert torch.equal(after, MultiExitModel.from_pretrained(tmp_path / "out")(ids).logits)
    assert not model.training


@pytest.fixture
def steps(monkeypatch):
    """The steps trained; with an interruption at the number in `steps.stop`."""

    class Steps(list):
        stop = None

    trained, step = Steps(), Trainer.training_step

    def training_step(self, *args, **kwargs):
        if self.state.global_step == trained.stop:
            raise KeyboardInterrupt
        trained.append(self.state.global_step)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "training_step", training_step)
    return trained


def weights(folder):
    return MultiExitModel.from_pretrained(folder).state_dict()


def equal(one, other):
    return all(torch.equal(weight, other[name]) for name, weight in one.items())


def interrupted(tokenizer, out, steps):
    """A training of 4 steps, with a checkpoint after 2 and an interruption after 3."""
    steps.stop = 3
    with pytest.raises(KeyboardInterrupt):
        fine_tune(tiny_model(), tokenizer, rows(), out, batch_size=8, save_steps=2)
    assert not is_finished(out)
    steps.stop = None
    steps.clear()
    return out / "checkpoints" / "checkpoint-2"


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("trainer_state.json", lambda path: path.unlink()),
        ("model.safetensors", cut),
        ("optimizer.pt", cut),
        (None, None),
    ],
)
def test_only_a_complete_checkpoint_is_gone_on_from(
    tokenizer, tmp_path, steps, at_once, name, damage
):
    out = tmp_path / "out"
    checkpoint = interrupted(tokenizer, out, steps)
    if name is not None:
        damage(checkpoint / name)
    fine_tune(tiny_model(), tokenizer, rows(), out, batch_size=8, save_steps=2)
    assert steps == ([2, 3] if name is None else [0, 1, 2, 3])
    assert equal(weights(out), weights(at_once))


def test_a_training_goes_on_alike_in_its_second_epoch(tokenizer, tmp_path, steps):
    """With the same batches, and at the same step of BERxiT's two."""
    at_once, out = tmp_path / "at-once", tmp_path / "out"
    options = dict(batch_size=8, epochs=2, save_steps=5)
    fine_tune(tiny_model(objective="berxit"), tokenizer, rows(), at_once, **options)
    steps.stop = 6
    with pytest.raises(KeyboardInterrupt):
        fine_tune(tiny_model(objective="berxit"), tokenizer, rows(), out, **options)
    steps.stop = None
    steps.clear()
    fine_tune(tiny_model(objective="berxit"), tokenizer, rows(), out, **options)
    assert steps == [5, 6, 7]
    assert equal(weights(out), weights(at_once))


def test_the_same_model_goes_on_too(tokenizer, tmp_path, steps):
    """As when a notebook's cell is run again: Trainer has changed its config, and its progress."""
    out, model = tmp_path / "out", tiny_model(objective="shallow-deep")
    steps.stop = 3
    with pytest.raises(KeyboardInterrupt):
        fine_tune(model, tokenizer, rows(), out, batch_size=8, save_steps=2)
    assert model.objective.progress is None
    steps.stop = None
    steps.clear()
    fine_tune(model, tokenizer, rows(), out, batch_size=8, save_steps=2)
    assert steps == [2, 3]
    assert equal(weights(out), model.state_dict())


def test_a_damaged_checkpoint_does_not_outlive_those_after_it(tokenizer, tmp_path, steps):
    out = tmp_path / "out"
    cut(interrupted(tokenizer, out, steps) / "optimizer.pt")
    steps.stop = 1
    with pytest.raises(KeyboardInterrupt):
        fine_tune(tiny_model(), tokenizer, rows(), out, batch_size=8, save_steps=1)
    steps.stop = None
    fine_tune(tiny_model(), tokenizer, rows(), out, batch_size=8)
    assert steps == [0, 1, 2, 3]


def test_once_finished_there_is_nothing_to_do(tokenizer, tmp_path, steps):
    out, again = tmp_path / "out", tiny_model(seed=1)
    fine_tune(tiny_model(), tokenizer, rows(), out, batch_size=8)
    assert is_finished(out)
    assert not (out / "checkpoints").exists()
    steps.clear()
    fine_tune(again, tokenizer, rows(), out, batch_size=8)
    assert not steps
    assert equal(weights(out), again.state_dict())
    (out / "tokenizer.json").unlink()
    assert not is_finished(out)


@pytest.mark.parametrize("finished", [True, False])
def test_another_training_is_refused_and_the_difference_named(tokenizer, tmp_path, steps, finished):
    out = tmp_path / "out"
    if finished:
        fine_tune(tiny_model(), tokenizer, rows(), out, batch_size=8)
    else:
        interrupted(tokenizer, out, steps)
    before = sorted(out.rglob("*"))
    with pytest.raises(ValueError, match="other arguments") as refused:
        fine_tune(
            tiny_model(exits=[2, 4]), tokenizer, rows(16), out, batch_size=8, learning_rate=0.1
        )
    for words in (
        "learning_rate was 5e-05, is 0.1",
        "model.exits was [1, 2, 3, 4], is [2, 4]",
        "the training data were others",
    ):
        assert words in str(refused.value)
    assert "batch_size" not in str(refused.value)
    assert sorted(out.rglob("*")) == before


def test_a_save_that_is_interrupted_does_not_count(tokenizer, tmp_path, steps, monkeypatch):
    out = tmp_path / "out"

    save = BertTokenizerFast._save_pretrained

    def full(self, save_directory, **options):
        if "checkpoint-" not in save_directory:  # that is there, this is the finished model
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(self, save_directory, **options)

    with monkeypatch.context() as patched:
        patched.setattr(BertTokenizerFast, "_save_pretrained", full)
        with pytest.raises(OSError, match="No space left"):
            fine_tune(tiny_model(), tokenizer, rows(), out, batch_size=8)
    assert not is_finished(out)
    assert [path.name for path in out.iterdir()] == ["checkpoints"]
    steps.clear()
    fine_tune(tiny_model(), tokenizer, rows(), out, batch_size=8)
    assert is_finished(out)
    assert not steps  # the last checkpoint holds it all


@pytest.mark.parametrize("room", [100_000, 300_000])  # no weights fit in, or no optimizer
def test_a_full_disk_is_one_error_that_can_be_gone_on_from(tokenizer, tmp_path, room):
    out, limits = tmp_path / "out", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(OSError, match="out cannot be written"):
            fine_tune(tiny_model(), tokenizer, rows(), out, batch_size=8, save_steps=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not is_finished(out)
    fine_tune(tiny_model(), tokenizer, rows(), out, batch_size=8, save_steps=2)
    assert is_finished(out)


SECOND = [("exits", step) for step in range(6)]  # steps of the second stage


def staged():
    return tiny_model(objective="deebert")


@pytest.fixture(scope="module")
def staged_at_once(tokenizer, tmp_path_factory):
    """A model that was trained without an interruption: 4 steps in stage 1, 6 in stage 2."""
    out = tmp_path_factory.mktemp("staged-at-once") / "out"
    fine_tune(staged(), tokenizer, rows(), out, epochs=(1, 1.5), batch_size=8)
    return out


@pytest.mark.parametrize(
    ("stop", "again"),
    [
        (("backbone", 3), [("backbone", 2), ("backbone", 3), *SECOND]),
        (("exits", 0), SECOND),
        (("exits", 3), SECOND[2:]),
    ],
)
def test_a_training_of_two_stages_goes_on_where_it_was(
    tokenizer, tmp_path, monkeypatch, staged_at_once, stop, again
):
    out, trained, step = tmp_path / "out", [], Trainer.training_step

    def training_step(self, model, *args, **kwargs):
        trained.append((self.model.stage.name, self.state.global_step))
        if trained[-1] == stop:
            raise KeyboardInterrupt
        return step(self, model, *args, **kwargs)

    def train(model):
        fine_tune(model, tokenizer, rows(), out, epochs=(1, 1.5), batch_size=8, save_steps=2)

    monkeypatch.setattr(Trainer, "training_step", training_step)
    model = staged()
    with pytest.raises(KeyboardInterrupt, match=r"go on from .*stage-\d/checkpoint-\d"):
        train(model)
    assert all(parameter.requires_grad for parameter in model.parameters())
    trained.clear()
    model, stop = staged(), None
    train(model)
    assert trained == again
    assert equal(weights(out), weights(staged_at_once))
    assert equal(weights(out), model.state_dict())
    assert not (out / "checkpoints").exists()


def test_a_folder_of_something_else_is_left_alone(tokenizer, tmp_path):
    tiny_model().save_pretrained(tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(FileExistsError, match="out holds something else"):
        fine_tune(tiny_model(), tokenizer, rows(), tmp_path / "out")
    with pytest.raises(FileExistsError, match=r"config\.json holds something else"):
        fine_tune(tiny_model(), tokenizer, rows(), tmp_path / "out" / "config.json")
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(learning_rate=math.nan), "learning_rate must be a finite number"),
        (dict(learning_rate=-1.0), "learning_rate must be a finite number"),
        (dict(epochs=math.inf), "epochs must be a finite number"),
        (dict(epochs="3"), "epochs must be a finite number, 0 or more; got '3'"),
        (dict(epochs=[1, 2]), "epochs must be one number, or 1: one for each stage of objective"),
        (dict(batch_size=0), "batch_size must be a whole number, 1 or more"),
        (dict(save_steps=0.5), "save_steps must be a whole number, 1 or more"),
        (
            dict(validation=Dataset.from_dict({"input_ids": [[5] * 41], "labels": [0]})),
            "validation has a text of 41 tokens, and the model takes 40",
        ),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(
    tokenizer, tmp_path, arguments, words
):
    with pytest.raises(ValueError, match=words):
        fine_tune(tiny_model(), tokenizer, rows(), tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_accelerate_is_missed_before_anything_is_written(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ModuleNotFoundError, match="accelerate"):
        fine_tune(tiny_model(), tokenizer, rows(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_each_exits_accuracy_is_reported_after_each_epoch(tokenizer, tmp_path, monkeypatch):
    reported = []
    monkeypatch.setattr(Trainer, "log", lambda self, logs, *_: reported.append(logs))
    out, model = tmp_path / "out", tiny_model()
    fine_tune(model, tokenizer, rows(), out, validation=rows(8), epochs=2, batch_size=16)
    evaluated = [logs for logs in reported if "eval_exit_1_accuracy" in logs]
    assert len(evaluated) == 2
    assert evaluated[0]["eval_exit_4_accuracy"] == evaluated[0]["eval_accuracy"]
    assert "keys_to_ignore_at_inference" not in json.loads((out / "config.json").read_text())
