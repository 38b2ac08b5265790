"""Little folders as a user has them: a base model, a finished multi-exit model, reviews."""

import os
import random
import sys
import warnings

import datasets
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast
from transformers.utils import logging

from eefast import attach_exits
from eefast.policies import Confidence
from eefast_cli.main import main

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "book", "the", "very"]


@pytest.fixture
def folder(tmp_path):
    """A random little BERT with a tokenizer, and reviews whose class is one of their words."""
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "bert")
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=16,
    )  # fmt: skip
    BertModel(config).save_pretrained(tmp_path / "bert")
    rng = random.Random(0)
    for name, size in (("train", 64), ("validation", 32)):
        lines = ["review,verdict"]
        for _ in range(size):
            word, label = rng.choice([("good", "positive"), ("bad", "negative")])
            lines.append(f"the {rng.choice(['film', 'book'])} very {word},{label}")
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.fixture
def model_folder(folder):
    """The path of a multi-exit model with random weights, a stored policy and a tokenizer."""
    torch.manual_seed(0)
    names = {0: "negative", 1: "positive"}
    model = attach_exits(BertModel.from_pretrained(folder / "bert"), id2label=names)
    model.set_policy(Confidence(threshold=0.55))
    path = folder / "model"
    model.save_pretrained(path)
    BertTokenizerFast.from_pretrained(folder / "bert").save_pretrained(path)
    return path


@pytest.fixture
def shell(monkeypatch, capsys):
    """Runs the command as from a shell: (exit code, stdout, stderr), neither of them a terminal."""
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    monkeypatch.setattr(os, "environ", os.environ.copy())  # what `main` sets does not stay
    # What it sets has been read already in this process, when tqdm was imported.
    datasets.disable_progress_bars()
    logging.disable_progress_bar()

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["eefast", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        return stopped.value.code, out, err

    yield run
    datasets.enable_progress_bars()
    logging.enable_progress_bar()
