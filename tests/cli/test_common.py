"""What commands share: a model folder is complete, or one line says what is missing."""

import shutil

import pytest
import torch

from eefast import MultiExitModel
from eefast_cli.common import load, load_tokenizer


def cut(name):
    def damage(path):
        content = (path / name).read_bytes()
        (path / name).write_bytes(content[: len(content) // 2])

    return damage


def remove(*names):
    return lambda path: [(path / name).unlink() for name in names]


def test_a_folder_gives_its_model_and_its_tokenizer(model_folder):
    model, tokenizer = load(model_folder)
    saved = MultiExitModel.from_pretrained(model_folder)
    assert torch.equal(model.heads.classifiers[0].weight, saved.heads.classifiers[0].weight)
    assert tokenizer.convert_tokens_to_ids("good") == 5


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (shutil.rmtree, "no model folder"),
        (remove("config.json"), "holds no model"),
        (cut("model.safetensors"), "damaged"),
        (remove("tokenizer.json", "tokenizer_config.json"), "no complete tokenizer"),
        (remove("tokenizer.json"), "no complete tokenizer"),
        (cut("tokenizer.json"), "no complete tokenizer"),
        (cut("config.json"), "not a valid JSON"),
    ],
)
def test_an_incomplete_folder_is_named_in_one_line(model_folder, damage, words):
    damage(model_folder)
    with pytest.raises((OSError, ValueError), match=words) as caught:
        load(model_folder)
    assert str(model_folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_without_exits_is_told_how_it_gets_them(folder):
    with pytest.raises(ValueError, match="attach_exits"):
        load(folder / "bert")


def test_a_base_model_without_vocabulary_is_no_source_of_a_tokenizer(folder):
    """transformers would make one of five special tokens."""
    remove("tokenizer.json", "tokenizer_config.json")(folder / "bert")
    with pytest.raises(FileNotFoundError, match="no complete tokenizer"):
        load_tokenizer(folder / "bert")
