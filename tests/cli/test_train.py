"""The command line: `eefast train` from files to a calibrated model, and its errors."""

import sys
from types import SimpleNamespace

import pytest
from transformers import BertModel, BertTokenizerFast, Trainer
from typer.testing import CliRunner

from eefast import ExitTrace, MultiExitModel, compile
from eefast.policies import BEEM, Confidence
from eefast_cli.main import app


def arguments(folder, **changes):
    options = {
        "--validation": folder / "validation.csv", "--text-column": "review",
        "--label-column": "verdict", "--epochs": 20, "--batch-size": 16,
        "--learning-rate": 0.005, "--max-length": 16, **changes,
    }  # fmt: skip
    flat = [str(part) for option in options.items() for part in option]
    return ["train", str(folder / "bert"), str(folder / "train.csv"), str(folder / "out"), *flat]


def test_train_makes_a_model_that_is_calibrated_and_ready(folder):
    result = CliRunner().invoke(app, arguments(folder), catch_exceptions=False)
    assert result.exit_code == 0
    assert "validation accuracy of each exit" in result.output
    model = MultiExitModel.from_pretrained(folder / "out")
    assert model.config.id2label == {0: "negative", 1: "positive"}
    assert model.config.exits == [1, 2]
    trace = ExitTrace.load(folder / "out" / "validation_trace.safetensors")
    assert trace.accuracies()[-1] == 1
    fast = compile(model)  # the policy is stored: no warning, which is an error in these tests
    assert fast.policy.name == "beem"
    tokenizer = BertTokenizerFast.from_pretrained(folder / "out")
    out = fast(**tokenizer("the film very good", return_tensors="pt"))
    assert model.config.id2label[out.prediction.item()] == "positive"


def test_train_goes_on_from_its_last_checkpoint(folder, monkeypatch):
    """Interrupted after a checkpoint, a second call trains the rest and no more."""
    steps = []
    step = Trainer.training_step

    def interrupted(self, *args, **kwargs):
        if self.state.global_step == 150 and len(steps) == 150:
            raise KeyboardInterrupt
        steps.append(self.state.global_step)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "training_step", interrupted)
    options = {"--epochs": 50}  # 200 steps, a checkpoint every 100
    CliRunner().invoke(app, arguments(folder, **options))
    assert len(steps) == 150
    assert not (folder / "out" / "config.json").exists()
    CliRunner().invoke(app, arguments(folder, **options), catch_exceptions=False)
    assert steps[150:] == list(range(100, 200))
    assert (folder / "out" / "config.json").exists()


def test_train_again_has_nothing_to_do_and_refuses_other_arguments(folder, caplog):
    CliRunner().invoke(app, arguments(folder), catch_exceptions=False)
    caplog.clear()
    CliRunner().invoke(app, arguments(folder), catch_exceptions=False)
    assert "nothing to do" in caplog.text
    with pytest.raises(ValueError, match=r"other arguments: learning_rate was 0\.005, is 0\.1\."):
        CliRunner().invoke(
            app, arguments(folder, **{"--learning-rate": 0.1}), catch_exceptions=False
        )


def test_train_again_keeps_the_policies_that_were_stored_since(folder):
    CliRunner().invoke(app, arguments(folder), catch_exceptions=False)
    model = MultiExitModel.from_pretrained(folder / "out")
    mine = BEEM(weights=[1, 1], thresholds=[0.25, 0])
    for policy in (Confidence(threshold=0.5), mine):
        model.set_policy(policy)
    model.save_policies(folder / "out")
    before = (folder / "out" / "config.json").read_bytes()
    CliRunner().invoke(app, arguments(folder), catch_exceptions=False)
    assert (folder / "out" / "config.json").read_bytes() == before


def test_a_finished_training_without_beem_gets_it_beside_the_others(folder):
    CliRunner().invoke(app, arguments(folder), catch_exceptions=False)
    model = MultiExitModel.from_pretrained(folder / "out")
    model.config.policies.clear()
    model.set_policy(Confidence(threshold=0.5))
    model.save_policies(folder / "out")
    CliRunner().invoke(app, arguments(folder), catch_exceptions=False)
    again = MultiExitModel.from_pretrained(folder / "out")
    assert sorted(again.config.policies) == ["beem", "confidence"]


def test_a_model_with_exits_is_no_base_model(folder, model_folder, shell):
    call = arguments(folder)
    call[1] = str(model_folder)
    code, _, err = shell(*call)
    assert (code, err) == (
        2, f"error: {model_folder} has exits already: give the model that it was made from\n",
    )  # fmt: skip


@pytest.mark.parametrize("longest", [16, 200, None])
def test_texts_are_cut_at_128_tokens_or_at_what_the_model_takes(folder, monkeypatch, longest):
    cut_at = []

    def encode(table, tokenizer, names, max_length):
        cut_at.append(max_length)
        raise ValueError("enough")

    monkeypatch.setattr("eefast.data.encode", encode)
    model = SimpleNamespace(layers=SimpleNamespace(max_length=longest))
    monkeypatch.setattr("eefast.attach.attach_exits", lambda *_, **__: model)
    call = arguments(folder)
    place = call.index("--max-length")
    del call[place : place + 2]
    CliRunner().invoke(app, call)
    assert cut_at == [min(128, longest or 128)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"--label-column": "stars"}, "has no column 'stars'"),
        ({"--exits": "1,3"}, "ending with the last layer"),
        ({"--exits": "a"}, "exits must be 'all' or layers"),
        ({"--head": "deep"}, "head must be one of"),
        ({"--objective": "luck"}, "unknown objective 'luck'"),
        ({"--epochs": "inf"}, "epochs must be a finite number"),
        ({"--learning-rate": "nan"}, "learning_rate must be a finite number"),
        ({"--max-length": "17"}, "--max-length must be at most 16"),
        ({"--validation": "nowhere.csv"}, "no file nowhere.csv"),
    ],
)
def test_wrong_arguments_are_one_line_before_anything_is_written(folder, shell, changes, words):
    code, out, err = shell(*arguments(folder, **changes))
    assert (code, out) == (2, "")
    assert words in err
    assert len(err.splitlines()) == 1
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("{folder}/nowhere", "no model folder {folder}/nowhere"),
        ("./nowhere", "no model folder ./nowhere"),
        ("{folder}/bare", "{folder}/bare holds no complete tokenizer"),
    ],
)
def test_a_folder_that_is_no_base_model_is_named(folder, shell, model, words):
    BertModel.from_pretrained(folder / "bert").save_pretrained(folder / "bare")
    call = arguments(folder)
    call[1] = model.format(folder=folder)
    code, _, err = shell(*call)
    assert code == 2
    assert err.startswith("error: " + words.format(folder=folder))
    assert not (folder / "out").exists()


def test_the_base_model_is_not_written_over(folder, shell):
    call = arguments(folder)
    call[3] = call[1]
    before = (folder / "bert" / "config.json").read_bytes()
    code, _, err = shell(*call)
    assert (code, err) == (
        2, f"error: {folder / 'bert'} holds something else: give another output folder\n",
    )  # fmt: skip
    assert (folder / "bert" / "config.json").read_bytes() == before


@pytest.mark.parametrize("extra", ["datasets", "accelerate"])
def test_a_missing_extra_is_named_before_anything_is_written(folder, shell, monkeypatch, extra):
    monkeypatch.delitem(sys.modules, "eefast.data", raising=False)
    monkeypatch.setitem(sys.modules, extra, None)  # as if it were not installed
    code, _, err = shell(*arguments(folder))
    assert (code, err) == (
        2, f"error: this command needs {extra}: install eefast with its extra [demo]\n",
    )  # fmt: skip
    assert not (folder / "out").exists()


def test_an_interruption_says_how_to_go_on(folder, shell, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "training_step", interrupted)
    code, _, err = shell(*arguments(folder))
    assert code == 130
    assert err.endswith("interrupted; run it again to begin anew, no checkpoint yet\n")
