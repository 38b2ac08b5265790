"""What lies in the folder of a training: what is trained there, its checkpoints, its model."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from eefast.files import write_whole

logger = logging.getLogger(__name__)

_CHANGES = {
    "_name_or_path",
    "architectures",
    "dtype",
    "policies",
    "transformers_version",
    "use_cache",
}
"""Fields of a config that another version, saving, calibration, or Trainer may change."""


class Run:
    """The folder of a training.

    `checkpoints/run.json` says what is trained while it lasts; `trained.json`, written last, says
    of what the finished model was made and which files it has.

    Args:
        folder: of the finished model.
        stages: of the training. Each of several has a folder of its own in `checkpoints`, kept to
            the end: its last checkpoint is what the next one begins with.

    Attributes:
        stages: the folders of the stages' checkpoints.
    """

    def __init__(self, folder: str | Path, stages: int = 1) -> None:
        self.folder = Path(folder)
        self.checkpoints = self.folder / "checkpoints"
        self.stages = [self.checkpoints]
        if stages > 1:
            self.stages = [self.checkpoints / f"stage-{i}" for i in range(1, stages + 1)]
        self._begun = self.checkpoints / "run.json"
        self._finished = self.folder / "trained.json"

    def is_finished(self) -> bool:
        """Whether the model is there, with all the files that it was saved with."""
        if not self._finished.exists():
            return False
        files = _read(self._finished).get("files", [])
        return bool(files) and all((self.folder / name).is_file() for name in files)

    def check(self, made_of: Mapping[str, Any]) -> None:
        """Refuse to go on with what something else has left here.

        Raises:
            ValueError: another training has begun or finished here; the message says what differs.
            FileExistsError: a file, or a model that was not trained here.
        """
        if self._finished.exists():  # if a file of it is gone, it is trained again
            before = _read(self._finished).get("made_of", {})
        elif self._begun.exists():
            before = _read(self._begun)
        elif (self.folder / "config.json").exists() or self.folder.is_file():
            raise FileExistsError(f"{self.folder} holds something else: give another output folder")
        else:
            return
        changed = _differences(before, json.loads(json.dumps(made_of, default=str)))
        if changed:
            raise ValueError(
                f"{self.folder} holds a training with other arguments: {'; '.join(changed)}. Give "
                "another output folder, or remove that one"
            )

    def begin(self, made_of: Mapping[str, Any]) -> Path | None:
        """Say what is trained here; returns the last checkpoint, see `last_checkpoint`.

        Checkpoints that were not written to their end are removed.
        """
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        write_whole(self._begun, json.dumps(made_of, default=str, indent=2) + "\n")
        for folder in self._written():
            if not _is_complete(folder):
                logger.warning("%s was not written to its end, and is removed", folder)
                shutil.rmtree(folder)
        return self.last_checkpoint()

    def last_checkpoint(self) -> Path | None:
        """The newest complete checkpoint of the last stage that has one; None if none has."""
        return next(filter(_is_complete, reversed(self._written())), None)

    def finish(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        made_of: Mapping[str, Any],
    ) -> None:
        """Save the model; only once all of it is there it counts as finished.

        The checkpoints, three times as large, are then removed.
        """
        self._finished.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=self.folder) as unfinished:
            model.save_pretrained(unfinished)
            tokenizer.save_pretrained(unfinished)
            files = sorted(os.listdir(unfinished))
            for name in files:
                os.replace(Path(unfinished) / name, self.folder / name)
        finished = {"made_of": made_of, "files": files}
        write_whole(self._finished, json.dumps(finished, default=str, indent=2) + "\n")
        shutil.rmtree(self.checkpoints)

    def _written(self) -> list[Path]:
        """All checkpoints, complete or not, the oldest first."""
        return [folder for stage in self.stages for folder in _numbered(stage)]


@contextmanager
def one_error_of_the_disk(folder: Path) -> Iterator[None]:
    """A full disk is an OSError, whichever library meets it.

    Raises:
        OSError: something in `folder` cannot be written.
    """
    try:
        yield
    except SafetensorError as error:
        raise OSError(f"{folder} cannot be written: {error}") from error
    except RuntimeError as error:
        if "PytorchStreamWriter" not in str(error) and "inline_container" not in str(error):
            raise
        raise OSError(f"{folder} cannot be written; is the disk full?") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except ValueError:
        raise ValueError(f"{path} is damaged: remove it, or give another output folder") from None
    return content


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Each argument that differs, in words."""
    words = []
    old, new = (
        _flat({k: v for k, v in made_of.items() if k != "data"}) for made_of in (before, now)
    )
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            words.append(f"{name} was {old.get(name)}, is {new.get(name)}")
    if before.get("data") != now.get("data"):
        words.append("the training data were others")
    return words


def _flat(described: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in described.items():
        if name in _CHANGES:
            continue
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def _numbered(checkpoints: Path) -> list[Path]:
    """The checkpoints in a folder, ascending by their steps."""
    numbers = {
        folder: folder.name.rpartition("-")[2] for folder in checkpoints.glob("checkpoint-*")
    }
    return sorted((f for f, n in numbers.items() if n.isdigit()), key=lambda f: int(numbers[f]))


def _is_complete(checkpoint: Path) -> bool:
    """Whether all that Trainer goes on from is there, to its end."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text())
        with safe_open(checkpoint / "model.safetensors", framework="pt"):
            pass
    except (OSError, ValueError, SafetensorError):
        return False
    # What torch saves is a zip file, whose table of contents is at its end.
    return all(
        zipfile.is_zipfile(checkpoint / name)
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin")
    )
