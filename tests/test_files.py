"""Files are replaced in one step or not at all."""

import pytest

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
