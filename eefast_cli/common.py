"""What the commands share: loading models and tokenizers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from eefast import ExitTrace, MultiExitModel


def load(folder: str | Path) -> tuple[MultiExitModel, PreTrainedTokenizerBase]:
    """The model that `eefast train` or `save_pretrained` wrote, and its tokenizer.

    Raises:
        FileNotFoundError: there is no such folder, or no tokenizer in it.
        ValueError: no multi-exit model, or a damaged one.
    """
    from eefast import MultiExitModel

    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no model folder {folder}")
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no model: it has no config.json")
    model = MultiExitModel.from_pretrained(folder)
    if not (folder / "tokenizer_config.json").is_file():
        raise FileNotFoundError(_no_tokenizer(folder, "no tokenizer_config.json"))
    return model, load_tokenizer(folder)


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, a folder or a name.

    Raises:
        FileNotFoundError: there is none in the folder.
        OSError: there is none of that name.
    """
    from transformers import AutoTokenizer

    folder = Path(source)
    if not folder.is_dir():
        return AutoTokenizer.from_pretrained(source)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # tokenizers raises nothing more precise
        reason = str(error).strip().partition("\n")[0]
        raise FileNotFoundError(_no_tokenizer(folder, reason)) from None
    # Without its vocabulary transformers makes one of a few special tokens.
    vocabularies = {*tokenizer.vocab_files_names.values()} - {"tokenizer_config.json"}
    if vocabularies and not any((folder / name).is_file() for name in vocabularies):
        missing = f"neither {' nor '.join(sorted(vocabularies))}"
        raise FileNotFoundError(_no_tokenizer(folder, missing))
    return tokenizer


def warn_of_exits_at_chance(trace: ExitTrace) -> None:
    """Say which exits have learned nothing: no setting of a policy can make up for it."""
    exits = trace.exits_at_chance()
    if exits:
        numbers = ", ".join(map(str, exits))
        typer.echo(
            f"exit{'s' * (len(exits) > 1)} {numbers} of {trace.num_exits}: no better than always "
            "answering the most frequent class; train longer, on more data, or with another "
            "learning rate",
            err=True,
        )


def _no_tokenizer(folder: Path, reason: str) -> str:
    return (
        f"{folder} holds no complete tokenizer ({reason}): save the one that the model was trained "
        "with, tokenizer.save_pretrained(folder)"
    )
