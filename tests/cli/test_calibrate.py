"""`eefast calibrate`: from a model's folder and a file to a stored policy, and its errors."""

import pytest

from eefast import ExitTrace, MultiExitModel, attach_exits, calibrate, simulate
from eefast.calibration import Costs
from eefast.policies import Budgeted
from eefast_cli.common import load

COLUMNS = ("--text-column", "review", "--label-column", "verdict")


@pytest.fixture
def arguments(folder, model_folder):
    return ("calibrate", model_folder, folder / "validation.csv", *COLUMNS)


@pytest.mark.parametrize(
    ("policy", "rule"),
    [
        ("beem", {}),
        ("beem", {"target_speedup": 1.2}),
        ("entropy", {"max_accuracy_drop": 0.5}),
        ("budgeted", {"target_speedup": 2.0}),
        ("beem", {"budget": 1.5}),
        ("confidence", {"metric": "f1"}),
    ],
)
def test_the_policy_is_stored_and_what_to_expect_of_it_is_shown(
    shell, arguments, model_folder, policy, rule
):
    options = [f"--{name.replace('_', '-')}={value}" for name, value in rule.items()]
    code, out, err = shell(*arguments, "--policy", policy, *options)
    trace = ExitTrace.load(model_folder / "validation_trace.safetensors")
    assert code == 0
    assert ("most frequent class" in err) == bool(trace.exits_at_chance())  # nothing was trained
    wanted = calibrate(policy, trace, **rule)
    stored = MultiExitModel.from_pretrained(model_folder)
    assert stored.get_policy(policy) == wanted
    assert stored.get_policy(policy).expected == wanted.expected
    assert stored.get_policy("confidence") is not None  # stored before
    fixed = calibrate("budgeted", trace, **rule)
    full = simulate(Budgeted(2), trace)
    for name, outcome in (
        (policy, wanted.expected),
        (f"fixed depth, {fixed.exit} layer", fixed.expected),
        ("full depth, 2 layers", full),
    ):
        row = next(line for line in out.splitlines() if name in line)
        assert f"{outcome.accuracy:.3f}" in row
        assert f"{outcome.layer_speedup:.2f}" in row
        if "metric" in rule:
            assert "f1" in out
            chosen = {policy: wanted, f"fixed depth, {fixed.exit} layer": fixed}
            outcome = simulate(chosen.get(name, Budgeted(2)), trace)
            assert row.rstrip(" │").endswith(f"{outcome.metric('f1'):.3f}")
    if "budget" in rule:
        names = (policy, f"fixed depth, {fixed.exit} layer", "full depth, 2 layers")
        layers = (2 / outcome.layer_speedup for outcome in (wanted.expected, fixed.expected, full))
        spent = "; ".join(f"{name} {cost:.4g}" for name, cost in zip(names, layers, strict=True))
        assert f"mean cost of a sample in layers: {spent} (budget 1.5)" in out
    assert f"stored in {model_folder} as its policy {policy!r}" in out


def test_a_budget_of_measured_costs(shell, arguments, model_folder, tmp_path):
    costs = Costs((5.0, 3.0), (0.5, 0.25), "ms")
    costs.save(tmp_path / "costs.json")
    options = ("--policy", "pabee", "--budget", 9, "--costs", tmp_path / "costs.json")
    code, out, _ = shell(*arguments, *options)
    assert code == 0
    assert "mean cost of a sample in ms: pabee 8.75; fixed" in out
    assert "; full depth, 2 layers 8.25 (budget 9)" in out


def test_a_trace_of_the_same_model_and_data_is_used_again(shell, arguments, model_folder):
    def written():
        return (model_folder / "validation_trace.safetensors").stat().st_mtime_ns

    assert shell(*arguments)[0] == 0
    first = written()
    assert shell(*arguments, "--policy", "pabee")[0] == 0
    assert written() == first
    assert shell(*arguments, "--max-length", "4")[0] == 0
    assert written() != first


def test_learned_scores_are_recorded_for_the_policy_that_reads_them(shell, arguments, model_folder):
    old, _ = load(model_folder)
    model = attach_exits(old.backbone, scorer_row=True, id2label=old.config.id2label)
    model.save_pretrained(model_folder)
    assert shell(*arguments, "--policy", "berxit")[0] == 0
    assert MultiExitModel.from_pretrained(model_folder).get_policy("berxit") is not None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--policy", "luck"), "unknown policy 'luck'; there are ['beem', 'berxit'"),
        (
            ("--target-speedup", 2, "--max-accuracy-drop", 0.1),
            "takes one of target_speedup, max_accuracy_drop and budget, got",
        ),
        (("--target-speedup", 0.5), "target_speedup must be in [1, inf], got 0.5"),
        (("--target-speedup", 3), "'beem' reaches target_speedup 3 on this trace: the fastest"),
        (("--budget", 0.5), "'beem' keeps within budget 0.5 (layers per sample)"),
        (("--budget", 1, "--costs", "nowhere.json"), "error: --costs must be a file that"),
        (("--budget", 1, "--costs", __file__), "test_calibrate.py holds no costs: Extra data"),
        (("--max-accuracy-drop", "nan"), "max_accuracy_drop must be in [0, 1], got nan"),
        (("--policy", "never"), "'never' does not say which settings to try"),
        (("--policy", "berxit"), "'berxit' reads learned scores and got none"),
        (("--max-length", 17), "max_length must be 1 to 16 for this model, got 17"),
        (("--label-column", "stars"), "has no column 'stars'"),
        (("--label-column", "review", "--text-column", "verdict"), "labels must be among"),
    ],
)
def test_errors_are_one_line_and_leave_the_model_alone(
    shell, arguments, model_folder, options, words
):
    before = (model_folder / "config.json").read_bytes()
    code, out, err = shell(*arguments, *options)
    assert (code, out) == (2, "")
    assert words in err
    assert len(err.splitlines()) == 1
    assert (model_folder / "config.json").read_bytes() == before


def test_no_such_folder(shell, folder):
    code, _, err = shell("calibrate", folder / "nowhere", folder / "validation.csv")
    assert (code, err) == (2, f"error: no model folder {folder / 'nowhere'}\n")


@pytest.mark.parametrize(
    "options", [("--policy", "luck"), ("--target-speedup", 2, "--max-accuracy-drop", 0.1)]
)
def test_wrong_options_are_found_before_anything_is_recorded(
    shell, arguments, model_folder, options
):
    assert shell(*arguments, *options)[0] == 2
    assert not (model_folder / "validation_trace.safetensors").exists()
