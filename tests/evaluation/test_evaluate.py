"""`evaluate`: figures against plain computations, and what it refuses."""

import json

import pytest
import torch
from rich.console import Console
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from eefast import compile, simulate
from eefast.data import load_table
from eefast.evaluation import NEVER, TRANSFORMERS, evaluate
from eefast.policies import PABEE, Budgeted, Confidence, Never
from eefast.traces import ExitTrace
from tests.evaluation.made import write_model, write_texts

FIGURES = ("speedup_vs_never", "speedup_vs_transformers", "p50_ms", "p90_ms")


def made(folder, classes=("negative", "positive"), **options):
    model, tokenizer = write_model(folder / "model", classes, **options)
    table = load_table(str(write_texts(folder / "data.csv", classes)), "test", "review", "verdict")
    return model, tokenizer, table


@pytest.mark.parametrize("classes", [("negative", "positive"), ("bad", "fair", "good")])
def test_rows_are_what_the_compiled_models_do(tmp_path, classes):
    model, tokenizer, table = made(tmp_path, classes)
    found = evaluate(model, tokenizer, table, timed=9, trace=tmp_path / "trace")
    assert found.policies == ["pabee", "beem"]  # those stored
    assert [row.name for row in found.rows] == [
        "pabee", "beem", "exit 1", "exit 2", NEVER, TRANSFORMERS,
    ]  # fmt: skip
    assert (found.samples, found.timed, found.max_length) == (40, 9, 16)
    trace = ExitTrace.load(tmp_path / "trace")
    assert found.exit_accuracies == trace.accuracies().tolist()
    labels = [classes.index(verdict) for verdict in table["label"]]
    batch = tokenizer(list(table["text"]), padding=True, return_tensors="pt")
    average = "binary" if len(classes) == 2 else "macro"
    for name, policy in {
        "pabee": model.get_policy("pabee"), "beem": model.get_policy("beem"),
        "exit 2": Budgeted(2), NEVER: Never(), TRANSFORMERS: Never(),
    }.items():  # fmt: skip
        row, out = found[name], compile(model, policy)(**batch)
        assert row.accuracy == pytest.approx(accuracy_score(labels, out.prediction))
        assert row.f1 == pytest.approx(f1_score(labels, out.prediction, average=average))
        assert row.matthews == pytest.approx(matthews_corrcoef(labels, out.prediction))
        assert row.exit_histogram == [(out.exit_layer == i).sum() for i in (1, 2, 3)]
        assert row.layer_speedup == pytest.approx(3 / out.exit_layer.double().mean().item())
        assert row.cost_speedup == simulate(policy, trace).cost_speedup
        assert row.timing.as_simulated == 9
        assert all(getattr(row.timing, figure) > 0 for figure in FIGURES)
    assert found[NEVER].timing.speedup_vs_never == 1
    assert found[TRANSFORMERS].timing.speedup_vs_transformers == 1
    assert found[TRANSFORMERS].setting is None
    assert json.loads(json.dumps(found.to_dict()))["rows"][0]["setting"]["policy"] == "pabee"


def test_tables_fit_a_terminal_and_the_picture_is_drawn(tmp_path):
    model, tokenizer, table = made(tmp_path)
    found = evaluate(model, tokenizer, table, timed=3)
    console = Console(width=80)
    with console.capture() as said:
        console.print(*found.tables())
    text = said.get()
    assert "…" not in text
    assert "F1 positive" in text
    shares = "".join(f"{100 * n / 40:4.0f}" for n in found["pabee"].exit_histogram)
    assert shares in text
    found.draw(tmp_path / "a.png", "title")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_policies_may_be_given_by_name(tmp_path):
    model, tokenizer, table = made(tmp_path, policies=())
    assert evaluate(model, tokenizer, table, timed=1).policies == []
    named = {"patient": PABEE(2), "sure": Confidence(0.9)}
    found = evaluate(model, tokenizer, table, policies=named, timed=1)
    assert found.policies == ["patient", "sure"]


def test_f1_and_matthews_are_left_out_where_there_is_one_class(tmp_path):
    model, tokenizer, table = made(tmp_path)
    found = evaluate(model, tokenizer, table.select(range(0, 40, 2)), timed=1)
    assert {(row.f1, row.matthews) for row in found.rows} == {(None, None)}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"timed": 0}, "timed must be 1 or more, got 0"),
        ({"max_length": 17}, "max_length must be 1 to 16 for this model, got 17"),
        ({"policies": {"far": Budgeted(4)}}, "exit 4 of a model with 3 exits"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, options, words):
    model, tokenizer, table = made(tmp_path)
    with pytest.raises(ValueError, match=words):
        evaluate(model, tokenizer, table, **options)


def test_other_labels_no_texts_and_other_devices_are_refused(tmp_path):
    model, tokenizer, table = made(tmp_path)
    other = load_table(
        str(write_texts(tmp_path / "other.csv", ("up", "down"))), "test", "review", "verdict"
    )
    with pytest.raises(ValueError, match=r"labels must be among \['negative', 'positive'\]"):
        evaluate(model, tokenizer, other)
    with pytest.raises(ValueError, match="at least one text, got none"):
        evaluate(model, tokenizer, table.select([]))
    with pytest.raises(ValueError, match="on the CPU to be timed, got it on meta"):
        evaluate(model.to(torch.device("meta")), tokenizer, table)
