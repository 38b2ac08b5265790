"""`predict`: texts in; labels, scores and exit layers out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from eefast.multi_exit import MultiExitModel
from eefast.runtime import CompiledModel


@dataclass(frozen=True)
class Prediction:
    """What a text was answered with."""

    label: str  # by `config.id2label`
    score: float  # the label's probability at the exit; of a model with one output, its value
    exit_layer: int  # 1-based layer after which it exited


def predict(
    fast: CompiledModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    batch_size: int = 32,
) -> Iterator[Prediction]:
    """Classify texts, in the order given. A batch runs when its first answer is asked for.

    Texts that are longer than the model takes are cut (see `longest_text`).

    Args:
        fast: from `eefast.compile`.
        tokenizer: the model's.
        texts: N texts.
        batch_size: texts a call.

    Returns:
        N predictions.

    Raises:
        ValueError: `batch_size` below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more, got {batch_size}")
    return _predictions(fast, tokenizer, texts, batch_size)


def _predictions(
    fast: CompiledModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    batch_size: int,
) -> Iterator[Prediction]:
    names: Any = fast.config.id2label
    longest = longest_text(fast.model, tokenizer)
    for start in range(0, len(texts), batch_size):
        batch = tokenizer(
            list(texts[start : start + batch_size]),
            padding=True,
            truncation=longest is not None,
            max_length=longest,
            return_tensors="pt",
        )
        out = fast(**batch.to(fast.device))
        if out.logits.shape[1] == 1:
            numbers, scores = torch.zeros_like(out.exit_layer), out.prediction
        else:
            numbers = out.prediction
            scores = out.logits.softmax(-1).gather(1, numbers.long()[:, None])[:, 0]
        for number, score, layer in zip(
            numbers.tolist(), scores.tolist(), out.exit_layer.tolist(), strict=True
        ):
            yield Prediction(names[number], score, layer)


def longest_text(
    model: MultiExitModel, tokenizer: PreTrainedTokenizerBase, asked: int | None = None
) -> int | None:
    """After how many tokens texts are cut; None: never.

    Args:
        model: takes so many at most, or any number.
        tokenizer: likewise.
        asked: a lower number, if one is wanted.

    Raises:
        ValueError: more than they take, or below 1.
    """
    limits = [tokenizer.model_max_length, model.layers.max_length]
    # A tokenizer without a limit has one of 1e30.
    longest = min((limit for limit in limits if limit is not None and limit < 1e9), default=None)
    if asked is None:
        return longest
    if not 1 <= asked <= (longest or asked):
        raise ValueError(f"max_length must be 1 to {longest} for this model, got {asked}")
    return asked
