"""Files that are replaced in one step: no reader and no interruption finds half of one."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """A name beside `path` to write to, which becomes `path` at the end.

    After an error `path` is as it was, and nothing is left under the other name. No two writers
    share that name: the last to finish wins.

    Raises:
        OSError: it cannot be written.
    """
    path = Path(path)
    new = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield new
        os.replace(new, path)
    except SafetensorError as error:  # its library has no other for a full disk
        raise OSError(f"{path} cannot be written: {error}") from error
    finally:
        new.unlink(missing_ok=True)


def write_whole(path: str | Path, text: str) -> None:
    """Replace a text file in one step."""
    with whole(path) as new:
        new.write_text(text)
