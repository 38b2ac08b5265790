"""`predict`: the answers of the compiled model, in order, for texts of any number and length."""

import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from eefast import attach_exits, compile
from eefast.policies import Budgeted, Confidence
from eefast.prediction import longest_text, predict

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film"]


@pytest.fixture
def tokenizer(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    return BertTokenizerFast(str(tmp_path / "vocab.txt"))


def model(num_labels=3):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=3, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=12,
    )  # fmt: skip
    return attach_exits(BertModel(config), num_labels=num_labels).eval()


def test_each_text_is_answered_as_by_itself(tokenizer):
    texts = ["good film", "bad", "bad bad film good", "film", ""]
    fast = compile(model(), Budgeted(1))
    scores = sorted(answer.score for answer in predict(fast, tokenizer, texts))
    fast.policy = Confidence(threshold=scores[2])  # which exit 1 reaches for some
    answers = list(predict(fast, tokenizer, texts, batch_size=2))
    for text, answer in zip(texts, answers, strict=True):
        out = fast(**tokenizer(text, return_tensors="pt"))
        assert answer.label == f"LABEL_{out.prediction.item()}"
        assert answer.score == pytest.approx(out.logits.softmax(-1).max().item(), rel=1e-5)
        assert answer.exit_layer == out.exit_layer.item()
    assert len({answer.exit_layer for answer in answers}) > 1  # or the test shows nothing


def test_a_value_of_one_output_is_given_as_it_is(tokenizer):
    fast = compile(model(num_labels=1), Budgeted(2))
    (answer,) = predict(fast, tokenizer, ["good film"])
    value = fast(**tokenizer("good film", return_tensors="pt")).logits.item()
    assert (answer.score, answer.exit_layer) == (pytest.approx(value), 2)


def test_long_texts_are_cut_to_what_the_model_takes(tokenizer):
    fast = compile(model(), Budgeted(1))
    assert longest_text(fast.model, tokenizer) == 12  # the tokenizer's own limit is 1e30
    long, cut = predict(fast, tokenizer, [50 * "good ", 10 * "good "], batch_size=1)
    assert long.score == pytest.approx(cut.score)
    tokenizer.model_max_length = 8
    assert longest_text(fast.model, tokenizer) == 8


def test_a_batch_runs_when_its_first_answer_is_asked_for(tokenizer, monkeypatch):
    fast = compile(model(), Budgeted(1))
    sizes = []
    fast.register_forward_hook(
        lambda module, args, kwargs, out: sizes.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    answers = predict(fast, tokenizer, 5 * ["film"], batch_size=3)
    next(answers)
    assert sizes == [3]
    assert len(list(answers)) == 4
    assert sizes == [3, 2]


def test_batch_size_must_be_positive(tokenizer):
    with pytest.raises(ValueError, match="batch_size must be 1 or more, got 0"):
        predict(compile(model(), Budgeted(1)), tokenizer, ["film"], batch_size=0)
