"""A tiny model with exits, its tokenizer and labelled texts, in a folder."""

import random

import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from eefast import attach_exits
from eefast.policies import BEEM, PABEE

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "book", "the", "very"]


STORED = (PABEE(1), BEEM.cost(3, 0.5))


def write_model(folder, classes=("negative", "positive"), policies=STORED):
    """Random weights of three layers; the folder holds the tokenizer, too."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "words.txt").write_text("\n".join(WORDS))
    tokenizer = BertTokenizerFast(str(folder / "words.txt"), model_max_length=16)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=3, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=16, initializer_range=0.5,
    )  # fmt: skip
    torch.manual_seed(0)
    labels = {
        "id2label": dict(enumerate(classes)),
        "label2id": {c: i for i, c in enumerate(classes)},
    }
    model = attach_exits(BertModel(config), **labels).eval()
    with torch.no_grad():
        for classifier in model.heads.classifiers:
            classifier.weight.normal_()
    for policy in policies:
        model.set_policy(policy)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer


def write_texts(path, classes=("negative", "positive"), size=40):
    """A CSV file with the columns `review` and `verdict`."""
    rng = random.Random(0)
    lines = ["review,verdict"]
    for i in range(size):
        text = " ".join(rng.choices(WORDS[5:], k=rng.randint(2, 9)))
        lines.append(f"{text},{classes[i % len(classes)]}")
    path.write_text("\n".join(lines) + "\n")
    return path
