"""The command line: `eefast train` from files to a calibrated model, and its errors."""

import sys

import pytest
from transformers import BertTokenizerFast
from typer.testing import CliRunner

from eefast import ExitTrace, MultiExitModel, compile
from eefast_cli.main import app, main


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
    from transformers import Trainer

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


def test_train_refuses_to_go_on_with_another_runs_checkpoints(folder):
    CliRunner().invoke(app, arguments(folder), catch_exceptions=False)
    with pytest.raises(ValueError, match=r"other arguments \(learning_rate differ\)"):
        CliRunner().invoke(
            app, arguments(folder, **{"--learning-rate": 0.1}), catch_exceptions=False
        )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"--label-column": "stars"}, "has no column 'stars'"),
        ({"--exits": "1,3"}, "ending with the last layer"),
        ({"--head": "deep"}, "head must be one of"),
        ({"--objective": "luck"}, "unknown objective 'luck'"),
        ({"--exits": "a"}, "exits must be 'all' or layers"),
    ],
)
def test_errors_are_one_line_and_exit_2(folder, changes, words, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["eefast", *arguments(folder, **changes)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    error = " ".join(capsys.readouterr().err.split())
    assert words in error
    assert "Traceback" not in error
    assert not (folder / "out" / "config.json").exists()


def test_a_missing_extra_is_named(folder, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "eefast.data", raising=False)
    monkeypatch.setitem(sys.modules, "datasets", None)  # as if it were not installed
    monkeypatch.setattr(sys, "argv", ["eefast", *arguments(folder)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert (
        "this command needs datasets: install eefast with its extra [demo]"
        in capsys.readouterr().err
    )
