"""Files are replaced in one step or not at all."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from safetensors.torch import save_file

from eefast.files import whole, write_whole


def test_a_file_is_replaced(tmp_path):
    path = tmp_path / "a.json"
    write_whole(path, "one")
    with whole(path) as new:
        new.write_text("two")
        assert path.read_text() == "one"
    assert path.read_text() == "two"
    assert list(tmp_path.iterdir()) == [path]


def test_after_an_error_the_file_is_as_it_was(tmp_path):
    path = tmp_path / "a.json"
    write_whole(path, "one")

    def interrupted():
        with whole(path) as new:
            new.write_text("tw")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_writers_of_one_path_do_not_meet(tmp_path):
    path, both = tmp_path / "a.json", Barrier(2)

    def write(text):
        with whole(path) as new:
            both.wait()
            new.write_text(text)
            both.wait()

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(write, "ab"))  # raises what they raised
    assert path.read_text() in ("a", "b")
    assert list(tmp_path.iterdir()) == [path]


def test_a_safetensors_file_that_cannot_be_written_is_an_os_error(tmp_path):
    with (
        pytest.raises(OSError, match=r"a/b\.safetensors cannot be written: .*o such file"),
        whole(tmp_path / "a" / "b.safetensors") as new,
    ):
        save_file({"weight": torch.zeros(1)}, new)
