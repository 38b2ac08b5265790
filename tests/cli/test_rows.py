"""Rows of files: what is read is what is written, and bad files are named."""

import io

import pytest

from eefast_cli.rows import columns_of, read_rows, row_writer

CSV = 'id,text,note\n007,"two\nlines, ""quoted""",None\n8,,NA\n'
JSON = '{"text": "gut é", "n": {"a": [1, null]}}\n{"text": "x", "score": 1.5}\n'


@pytest.mark.parametrize(
    ("name", "content"), [("a.csv", CSV), ("a.jsonl", JSON), ("A.JSON", JSON), ("A.CSV", CSV)]
)
def test_rows_are_written_as_they_were_read(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    rows = read_rows(path, "text")
    written = io.StringIO()
    write = row_writer(path, written, columns_of(rows))
    for row in rows:
        write(row)
    assert written.getvalue() == content


def test_a_list_of_json_objects_is_as_good_as_lines(tmp_path):
    (tmp_path / "a.json").write_text('\n[{"text": "a"},\n {"text": "b"}]')
    assert read_rows(tmp_path / "a.json", "text") == [{"text": "a"}, {"text": "b"}]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    (tmp_path / "a.csv").write_text("text\nhello\n", encoding="utf-8-sig")
    assert read_rows(tmp_path / "a.csv", "text") == [{"text": "hello"}]


def test_a_text_may_be_longer_than_the_csv_modules_own_limit(tmp_path):
    (tmp_path / "a.csv").write_text("text\n" + 200_000 * "a" + "\n")
    assert len(read_rows(tmp_path / "a.csv", "text")[0]["text"]) == 200_000


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "", "holds no rows"),
        ("a.csv", "text\n", "holds no rows"),
        ("a.csv", "text,text\na,b\n", "two columns have one name"),
        ("a.csv", "text,id\na,1\nb\n", "line 3 has 1 cells, not 2"),
        ("a.csv", "text\né\n".encode("latin-1"), "must be UTF-8, save it as that: 'utf-8'"),
        ("a.csv", 'text\n"open\n', "cannot be read: unexpected end"),
        ("a.csv", "words\na\n", "has no column 'text', only"),
        ("a.jsonl", "\n", "holds no rows"),
        ("a.jsonl", '{"text": "a"}\n{"text": 3}\n', "must hold texts, got 3 in row 2"),
        ("a.jsonl", '{"text": "a"}\n{}\n', "must hold texts, got None in row 2"),
        ("a.jsonl", '{"text": "a"\n', "line 1 is not JSON"),
        ("a.json", '[{"text": "a"}, ["b"]]', "row 2 must be a JSON object, got list"),
        ("a.json", '[{"text": "a"},', "cannot be read"),
        ("a.txt", "a\n", "must be a .csv, .json or .jsonl file"),
        ("a.csv", None, "no file"),
    ],
)
def test_a_file_without_texts_is_refused_in_one_line(tmp_path, name, content, words):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises((ValueError, FileNotFoundError), match=words) as caught:
        read_rows(path, "text")
    assert str(path) in str(caught.value)
