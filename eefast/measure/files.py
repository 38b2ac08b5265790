"""Files that are replaced in one step: no reader and no interruption finds half of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to, which becomes `path` at the end.

    After an error `path` is as it was, and nothing is left under the other name.
    """
    new = path.with_name(path.name + ".new")
    try:
        yield new
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Replace a text file in one step."""
    with whole(path) as new:
        new.write_text(text)
