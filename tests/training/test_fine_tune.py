"""Fine-tuning: memory and disk hold the same model; half-written checkpoints are passed over."""

import shutil

import pytest
import torch
from datasets import Dataset
from transformers import BertTokenizerFast

from eefast import MultiExitModel
from eefast.training.fine_tune import fine_tune, is_finished
from tests.models import tiny_model


@pytest.fixture
def tokenizer(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(90))]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    return BertTokenizerFast(str(tmp_path / "vocab.txt"))


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


def test_a_checkpoint_that_was_not_written_to_its_end_is_passed_over(tokenizer, tmp_path):
    out = tmp_path / "out"
    fine_tune(tiny_model(), tokenizer, rows(), out, batch_size=8, save_steps=2)
    assert is_finished(out)
    wanted = MultiExitModel.from_pretrained(out)
    newest = out / "checkpoints" / "checkpoint-4"
    shutil.copytree(newest, out / "checkpoints" / "checkpoint-2")
    (newest / "trainer_state.json").unlink()  # as if writing had stopped before the end
    (out / "tokenizer_config.json").unlink()
    assert not is_finished(out)
    again = tiny_model()
    fine_tune(again, tokenizer, rows(), out, batch_size=8, save_steps=2)
    for name, weight in wanted.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name
