"""`eefast demo`: where it looks, and that it answers without training where it can."""

import pytest

import eefast.demo


@pytest.fixture
def runs(monkeypatch):
    """Calls of `run_demo`, which does nothing here."""
    calls = []
    monkeypatch.setattr("eefast.demo.run_demo", lambda *args, **kw: calls.append((args, kw)))
    return calls


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """Sets what `trained_model` finds, and where the demo's folder must then be."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))

    def found(folder):
        def trained_model(output, task, seed):
            assert (output, task, seed) == (cache / "eefast" / "demo", "tweets", 1)
            return folder

        monkeypatch.setattr("eefast.demo.trained_model", trained_model, raising=False)

    return found


def test_texts_are_answered_at_once_where_the_model_is(shell, trained, runs, model_folder):
    trained(model_folder)
    code, out, err = shell("demo", "the good film", "bad [i]film[/i]")
    assert (code, err, runs) == (0, "", [])
    assert [line.partition("  ")[2] for line in out.splitlines()] == [
        "the good film", "bad [i]film[/i]",
    ]  # fmt: skip


def test_without_a_model_it_says_first_that_it_will_train(shell, trained, runs, tmp_path):
    trained(None)
    code, _, err = shell("demo", "a text")
    folder = tmp_path / "cache" / "eefast" / "demo"
    assert code == 0
    assert err.startswith(f"no trained model in {folder}: training it takes about 10 minutes")
    assert runs == [((folder,), {"task": "tweets", "seed": 1, "sentences": ["a text"]})]


def test_without_texts_it_is_the_whole_demo(shell, trained, runs, model_folder):
    trained(model_folder)
    assert shell("demo") == (0, "", "")
    assert len(runs) == 1
    assert runs[0][1]["sentences"] is None


def test_a_model_that_was_not_calibrated_yet_is(shell, trained, runs, model_folder):
    model = eefast.MultiExitModel.from_pretrained(model_folder)
    model.config.policies.clear()
    model.save_pretrained(model_folder)
    trained(model_folder)
    shell("demo", "a text")
    assert len(runs) == 1


def test_the_help_says_where_it_looks(capsys, shell):
    _, out, _ = shell("demo", "--help")
    assert "$XDG_CACHE_HOME/eefast/demo" in out
